//! Faults between any two steps: crashes, hangs, a planner that stops half-way through a plan, plans made
//! from an old view, and new specs at any moment. The fleet gets to what the last spec asks for, and stays.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod world;

use jiff::SignedDuration;
use proptest::prelude::*;
use shoal_plan::{Action, Observed, Phase, Role, Template, plan};
use world::{World, cluster};

#[derive(Debug, Clone)]
enum Event {
    Reconcile,
    /// Only the first steps are carried out, and the status is not written: the planner's host was killed.
    Killed {
        after: usize,
    },
    /// A plan made from what was seen some events ago; the host refuses steps whose object changed since.
    Stale,
    Pass {
        seconds: i64,
    },
    Crash(usize),
    CrashGateway,
    Hang(usize),
    Busy(usize),
    Scale {
        prefill: i32,
        decode: i32,
    },
    Settings {
        max_batch: i32,
    },
    Model {
        letter: char,
    },
    Port {
        port: i32,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Reconcile),
        3 => (0usize..4).prop_map(|after| Event::Killed { after }),
        2 => Just(Event::Stale),
        8 => (1i64..40).prop_map(|seconds| Event::Pass { seconds }),
        2 => (0usize..16).prop_map(Event::Crash),
        1 => Just(Event::CrashGateway),
        1 => (0usize..16).prop_map(Event::Hang),
        2 => (0usize..16).prop_map(Event::Busy),
        2 => (0i32..5, 1i32..5).prop_map(|(prefill, decode)| Event::Scale { prefill, decode }),
        1 => (1i32..4).prop_map(|max_batch| Event::Settings { max_batch }),
        1 => prop_oneof![Just('a'), Just('b')].prop_map(|letter| Event::Model { letter }),
        1 => (8000i32..8003).prop_map(|port| Event::Port { port }),
    ]
}

/// Carries out a step that the planner made from the truth, and checks what it costs.
fn apply_checked(world: &mut World, action: &Action) {
    let before = Role::ALL.map(|role| world.ready(role));
    world.apply(action);
    for (role, before) in Role::ALL.into_iter().zip(before) {
        let asked = if role == Role::Prefill { world.cluster.spec.prefill.replicas } else { 1 };
        let after = world.ready(role);
        assert!(asked == 0 || after >= before.min(1), "{action:?} took the last ready {role} instance");
    }
    world.check();
}

/// A host's precondition: the object is still as the planner saw it.
fn unchanged(seen: &Observed, world: &World, action: &Action) -> bool {
    match action {
        Action::CreateInstance { .. } | Action::CreateGateway { .. } => true,
        Action::ReplaceGateway { .. } | Action::StopGateway => seen.gateway == world.observed.gateway,
        other => {
            let find = |view: &Observed| view.instances.iter().find(|i| i.name == other.subject()).cloned();
            find(seen) == find(&world.observed)
        }
    }
}

fn happen(world: &mut World, past: &mut Observed, event: &Event) {
    match event {
        Event::Reconcile => {
            let plan = world.plan();
            for step in &plan.steps {
                apply_checked(world, &step.action);
            }
            world.observed.status = Some(plan.status);
        }
        Event::Killed { after } => {
            for step in world.plan().steps.iter().take(*after) {
                apply_checked(world, &step.action);
            }
        }
        Event::Stale => {
            let seen = past.clone();
            for step in plan(&world.cluster, &seen, world.now).steps {
                if unchanged(&seen, world, &step.action) {
                    world.apply(&step.action);
                    world.check();
                }
            }
            *past = world.observed.clone();
        }
        Event::Pass { seconds } => world.tick(*seconds),
        Event::Crash(index) => world.crash(*index),
        Event::CrashGateway => world.crash_gateway(),
        Event::Hang(index) => world.hang(*index),
        Event::Busy(index) => {
            let count = world.observed.instances.len();
            if count > 0 {
                world.observed.instances[index % count].in_flight += 7;
            }
        }
        Event::Scale { prefill, decode } => {
            world.change(|spec| (spec.prefill.replicas, spec.decode.replicas) = (*prefill, *decode));
        }
        Event::Settings { max_batch } => world.change(|spec| spec.engine.max_batch = *max_batch),
        Event::Model { letter } => world.change(|spec| spec.model.source.path = format!("/models/{letter}")),
        Event::Port { port } => world.change(|spec| spec.gateway.port = *port),
    }
}

/// What the last spec asks for is there, and nothing else.
fn assert_is_what_is_asked_for(world: &World) {
    let wanted = Template::of(&world.cluster.spec, "").hash();
    let spec = &world.cluster.spec;
    let instances = &world.observed.instances;
    assert_eq!(instances.len() as i32, spec.prefill.replicas + spec.decode.replicas);
    assert_eq!(world.ready(Role::Prefill) as i32, spec.prefill.replicas);
    assert!(instances.iter().all(|instance| instance.template == wanted), "an earlier template is left");
    let gateway = world.observed.gateway.as_ref().unwrap();
    assert_eq!(i32::from(gateway.port), spec.gateway.port);
    assert!(matches!(gateway.phase, Phase::Ready { .. }));
    let status = world.observed.status.as_ref().unwrap();
    assert_eq!(status.observed_generation, Some(world.cluster.generation));
    assert!(status.is("Ready") && !status.is("Progressing") && !status.is("Degraded"), "{status:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_in_what_the_last_spec_asks_for_and_then_nothing_is_written(
        prefill in 0i32..4, decode in 1i32..4, events in prop::collection::vec(event(), 0..60)
    ) {
        let mut world = World::new(cluster(prefill, decode));
        let mut past = Observed::default();
        for (index, event) in events.iter().enumerate() {
            if index % 5 == 0 {
                past = world.observed.clone();
            }
            happen(&mut world, &mut past, event);
        }
        world.converge();
        assert_is_what_is_asked_for(&world);
        let (settled, created, deleted) = (world.observed.status.clone(), world.created, world.deleted);
        for _ in 0..50 {
            world.tick(60);
            let plan = world.reconcile();
            prop_assert!(plan.is_settled() && plan.requeue_after.is_none(), "{plan:?}");
        }
        prop_assert_eq!(&world.observed.status, &settled);
        prop_assert_eq!((world.created, world.deleted), (created, deleted));
    }
}

#[test]
fn new_settings_replace_one_at_a_time_and_every_role_keeps_what_is_asked_for_ready() {
    let mut world = World::settled(cluster(2, 3));
    world.change(|spec| spec.engine.max_batch = 8);
    let created = world.created;
    for _ in 0..200 {
        let plan = world.reconcile();
        assert!(world.ready(Role::Prefill) >= 2 && world.ready(Role::Decode) >= 3, "{:?}", world.phases());
        assert!(world.observed.instances.len() <= 5 + 2 + 2, "one more per role, and those that leave");
        if plan.is_settled() {
            break;
        }
        world.tick(1);
    }
    assert_is_what_is_asked_for(&world);
    assert_eq!(world.created - created, 5, "each instance is replaced once");
}

#[test]
fn a_broken_setting_costs_nothing_that_serves_and_going_back_needs_no_manual_delete() {
    let mut world = World::settled(cluster(1, 2));
    let good = world.cluster.spec.clone();
    world.change(|spec| spec.model.source.path = "/models/absent".to_owned());
    world.broken.insert(Template::of(&world.cluster.spec, "").hash());
    for _ in 0..120 {
        world.reconcile();
        world.tick(5);
        assert!(world.ready(Role::Prefill) == 1 && world.ready(Role::Decode) == 2, "{:?}", world.phases());
    }
    let status = world.plan().status;
    assert!(status.is("Ready") && status.is("Degraded") && status.is("Progressing"), "{status:?}");
    let starts = world.replaced;
    assert!(starts < 20, "ten minutes of backoff, two instances: {starts} starts");
    world.change(|spec| *spec = good);
    world.converge();
    assert_is_what_is_asked_for(&world);
}

#[test]
fn backoff_goes_on_where_it_was_when_the_planner_is_new() {
    let mut world = World::settled(cluster(0, 1));
    for _ in 0..6 {
        world.crash(0);
        let plan = world.plan();
        let pause = plan.requeue_after.unwrap();
        // A planner that knows only what is observed, as after a restart.
        let again = plan_from_scratch(&world);
        assert_eq!(again.requeue_after, Some(pause));
        world.now += pause;
        assert_eq!(world.reconcile().steps.len(), 1);
        assert!(matches!(world.observed.instances[0].phase, Phase::Starting { .. }));
        world.tick(4);
    }
    assert_eq!(world.observed.instances[0].crashes.count, 6);
    world.crash(0);
    assert!(
        world.plan().requeue_after.unwrap() >= SignedDuration::from_secs(48),
        "the seventh waits 48 s to 64 s"
    );
}

fn plan_from_scratch(world: &World) -> shoal_plan::Plan {
    let observed = Observed { status: None, ..world.observed.clone() };
    plan(&world.cluster, &observed, world.now)
}

#[test]
fn stopping_ends_the_gateway_first_and_leaves_nothing() {
    let mut world = World::settled(cluster(1, 2));
    world.cluster.stopping = true;
    let plan = world.reconcile();
    assert_eq!(plan.steps.len(), 1, "only the gateway: {plan:?}");
    assert_eq!(plan.steps[0].action, Action::StopGateway);
    world.tick(1);
    assert_eq!(world.reconcile().steps.len(), 3);
    world.tick(1);
    assert!(world.observed.instances.is_empty() && world.observed.gateway.is_none());
    assert!(world.plan().is_settled());
}
