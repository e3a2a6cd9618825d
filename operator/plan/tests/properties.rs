//! Whatever is observed, sane or not: a plan comes back, the same one each time, with reasons, and planning
//! again on its outcome adds nothing.

mod world;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use shoal_plan::{
    Action, Cluster, CrashHistory, Gateway, Instance, Observed, Phase, Role, Template, model_digest, plan,
};
use world::{World, cluster, start};

fn time() -> impl Strategy<Value = Timestamp> {
    (-100_000i64..1000).prop_map(|seconds| start() + SignedDuration::from_secs(seconds))
}

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        2 => time().prop_map(|since| Phase::Starting { since }),
        5 => time().prop_map(|since| Phase::Ready { since }),
        1 => time().prop_map(|since| Phase::Unresponsive { since }),
        2 => time().prop_map(|since| Phase::Draining { since }),
        2 => time().prop_map(|at| Phase::Crashed { at, exit: "exit 1".to_owned() }),
        1 => time().prop_map(|since| Phase::Retrying { since, why: "no node has room".to_owned() }),
        1 => time().prop_map(|since| Phase::Stopping { since }),
    ]
}

fn instance() -> impl Strategy<Value = Instance> {
    let current = cluster(1, 1);
    let mut other = current.spec.clone();
    "other".clone_into(&mut other.model.name);
    let mut tuned = current.spec.clone();
    tuned.engine.max_batch = 7;
    let templates = [current.spec, other, tuned].map(|spec| Template::of(&spec, ""));
    (0u32..20, any::<bool>(), prop::sample::select(templates.to_vec()), phase(), time(), 0u32..30, 0u32..9)
        .prop_map(|(number, prefill, template, phase, created, count, in_flight)| Instance {
            name: format!("chat-{number}"),
            role: if prefill { Role::Prefill } else { Role::Decode },
            template: template.hash(),
            model: model_digest(&template.model),
            created,
            phase,
            crashes: CrashHistory { count },
            in_flight,
        })
}

fn observed() -> impl Strategy<Value = Observed> {
    let gateway = (phase(), 8000u16..8002, any::<(bool, bool)>(), 0u32..9).prop_map(
        |(phase, port, (same, rolls), count)| Gateway {
            model: if same { model_digest(&cluster(1, 1).spec.model) } else { "another".to_owned() },
            port,
            phase,
            crashes: CrashHistory { count },
            serving: same,
            endpoint: "http://127.0.0.1:8000/v1".to_owned(),
            rolls,
            trouble: rolls.then(|| "one of two crashed".to_owned()),
        },
    );
    (prop::collection::vec(instance(), 0..12), prop::option::of(gateway)).prop_map(
        |(mut instances, gateway)| {
            let mut names = BTreeSet::new();
            instances.retain(|instance| names.insert(instance.name.clone()));
            Observed { instances, gateway, status: None }
        },
    )
}

fn ready(observed: &Observed, role: Role) -> usize {
    let serves = |i: &&Instance| i.role == role && matches!(i.phase, Phase::Ready { .. });
    observed.instances.iter().filter(serves).count()
}

fn acting(cluster: Cluster, observed: Observed) -> World {
    World { observed, ..World::new(cluster) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_in_which_instances_are_listed_changes_nothing(
        mut observed in observed(), prefill in 0i32..4, decode in 1i32..4
    ) {
        let cluster = cluster(prefill, decode);
        let first = plan(&cluster, &observed, start());
        observed.instances.reverse();
        prop_assert_eq!(first, plan(&cluster, &observed, start()));
    }

    #[test]
    fn planning_on_the_outcome_of_a_plan_adds_no_step(
        observed in observed(), prefill in 0i32..4, decode in 1i32..4, stopping in any::<bool>()
    ) {
        let mut world = acting(Cluster { stopping, ..cluster(prefill, decode) }, observed);
        // A step may make the next one possible (what is drained and empty is deleted), but each object
        // gets there in a few plans without time passing, and then nothing is left to do.
        let mut plans = 0;
        while !world.reconcile().steps.is_empty() {
            world.check();
            plans += 1;
            prop_assert!(plans <= 3, "still planning: {:?}", world.plan());
        }
        prop_assert!(world.plan().steps.is_empty());
    }

    #[test]
    fn the_last_ready_instance_of_a_role_in_use_is_never_taken(
        observed in observed(), prefill in 0i32..4, decode in 1i32..4
    ) {
        let mut world = acting(cluster(prefill, decode), observed.clone());
        for step in world.plan().steps {
            world.apply(&step.action);
        }
        prop_assert!(ready(&world.observed, Role::Decode) >= ready(&observed, Role::Decode).min(decode as usize));
        if prefill > 0 {
            prop_assert!(ready(&world.observed, Role::Prefill) >= ready(&observed, Role::Prefill).min(prefill as usize));
        }
    }

    #[test]
    fn each_subject_gets_at_most_one_step_and_every_step_and_wait_says_why(
        observed in observed(), prefill in 0i32..4, decode in 1i32..4, stopping in any::<bool>()
    ) {
        let found = plan(&Cluster { stopping, ..cluster(prefill, decode) }, &observed, start());
        let mut subjects = BTreeSet::new();
        for step in &found.steps {
            prop_assert!(subjects.insert(step.action.subject().to_owned()), "two steps: {:?}", found.steps);
            prop_assert!(!step.reason.trim().is_empty());
        }
        prop_assert!(found.waits.iter().all(|wait| !wait.reason.trim().is_empty() && !wait.subject.is_empty()));
        prop_assert!(!(stopping && found.steps.iter().any(|step| step.action.verb() == "create")));
    }

    #[test]
    fn names_are_new_unique_dns_labels_even_for_the_longest_cluster_name(
        observed in observed(), prefill in 0i32..32, decode in 1i32..33
    ) {
        let long = "c".repeat(shoal_crds::MAX_NAME_LENGTH);
        let cluster = Cluster { name: long, ..cluster(prefill, decode) };
        let taken: BTreeSet<&str> = observed.instances.iter().map(|i| i.name.as_str()).collect();
        let mut names = BTreeSet::new();
        for step in plan(&cluster, &observed, start()).steps {
            if let Action::CreateInstance { name, .. } = step.action {
                prop_assert!(name.len() <= 63 && !taken.contains(name.as_str()), "{}", name);
                prop_assert!(names.insert(name));
            }
        }
    }

    #[test]
    fn a_published_status_is_not_published_again(
        observed in observed(), prefill in 0i32..4, decode in 1i32..4, later in 0i64..500
    ) {
        let cluster = cluster(prefill, decode);
        let first = plan(&cluster, &observed, start());
        let seen = Observed { status: Some(first.status.clone()), ..observed };
        prop_assert_eq!(plan(&cluster, &seen, start()).status, first.status.clone());
        // Later, a step may be due, and only then may the status move.
        let again = plan(&cluster, &seen, start() + SignedDuration::from_secs(later));
        prop_assert!(again.status == first.status || again.steps != first.steps);
    }
}
