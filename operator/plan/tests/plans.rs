//! Whole plans, as they are carried out: review a change of these files as a change of behaviour.

mod world;

use insta::assert_yaml_snapshot;
use jiff::SignedDuration;
use shoal_plan::{DRAIN_TIMEOUT, Phase, Role};
use world::{World, cluster};

#[test]
fn nothing_is_there_yet() {
    assert_yaml_snapshot!(World::new(cluster(1, 2)).plan());
}

#[test]
fn everything_is_there() {
    assert_yaml_snapshot!(World::settled(cluster(1, 2)).plan());
}

#[test]
fn one_instance_crashed() {
    let mut world = World::settled(cluster(1, 2));
    world.crash(2);
    assert_yaml_snapshot!("one_instance_crashed_and_pauses", world.plan());
    world.now += SignedDuration::from_secs(1);
    assert_yaml_snapshot!("one_instance_crashed_and_is_replaced", world.plan());
}

#[test]
fn one_instance_is_silent() {
    let mut world = World::settled(cluster(1, 2));
    world.hang(1);
    world.now += SignedDuration::from_secs(10);
    assert_yaml_snapshot!(world.plan());
}

#[test]
fn fewer_are_asked_for() {
    let mut world = World::settled(cluster(2, 3));
    world.instance("chat-2").in_flight = 4;
    world.change(|spec| (spec.prefill.replicas, spec.decode.replicas) = (0, 2));
    assert_yaml_snapshot!(world.plan());
}

#[test]
fn the_settings_changed() {
    let mut world = World::settled(cluster(1, 1));
    world.change(|spec| spec.engine.max_batch = 8);
    assert_yaml_snapshot!("the_settings_changed_one_more", world.reconcile());
    world.tick(5);
    assert_yaml_snapshot!("the_settings_changed_one_less", world.reconcile());
}

#[test]
fn the_model_changed_and_as_many_of_it_are_ready() {
    let mut world = World::settled(cluster(1, 1));
    world.change(|spec| spec.model.name = "other".to_owned());
    world.reconcile();
    assert_yaml_snapshot!("the_model_changed_and_loads", world.plan());
    world.tick(5);
    assert_yaml_snapshot!("the_model_changed_and_is_ready", world.plan());
}

#[test]
fn the_port_changed() {
    let mut world = World::settled(cluster(0, 1));
    world.change(|spec| spec.gateway.port = 9000);
    assert_yaml_snapshot!(world.plan());
}

#[test]
fn a_gateway_that_rolls_is_changed_without_being_stopped() {
    let mut world = World::settled(cluster(1, 1));
    world.observed.gateway.as_mut().unwrap().rolls = true;
    world.change(|spec| spec.model.name = "other".to_owned());
    world.reconcile();
    world.tick(5);
    let steps = world.plan().steps;
    let gateway = steps.iter().find(|step| step.action.subject() == "gateway").unwrap();
    assert_eq!((gateway.action.verb(), gateway.reason.as_str()), ("replace", "the model is now other"));
}

#[test]
fn a_gateway_that_serves_with_a_part_of_it_down_is_degraded_and_left_alone() {
    let mut world = World::settled(cluster(1, 1));
    world.observed.gateway.as_mut().unwrap().trouble = Some("crashed (exit 1)".to_owned());
    let plan = world.plan();
    assert!(plan.is_settled() && plan.status.is(shoal_crds::condition::READY), "{plan:?}");
    let degraded = plan.status.condition(shoal_crds::condition::DEGRADED).unwrap();
    assert_eq!((degraded.status.as_str(), degraded.message.as_str()), ("True", "gateway: crashed (exit 1)"));
}

#[test]
fn what_its_host_tries_again_is_reported_and_left_alone_until_the_settings_change() {
    let mut world = World::settled(cluster(1, 1));
    let since = world.now;
    let why = "image shoal:x cannot be pulled".to_owned();
    world.instance("chat-1").phase = Phase::Retrying { since, why: why.clone() };
    world.now += SignedDuration::from_hours(5);
    let plan = world.plan();
    assert!(plan.steps.is_empty() && plan.requeue_after.is_none(), "{plan:?}");
    let degraded = plan.status.condition(shoal_crds::condition::DEGRADED).unwrap();
    assert_eq!((degraded.status.as_str(), degraded.message.as_str()), ("True", &*format!("chat-1: {why}")));
    world.change(|spec| spec.engine.max_batch = 8);
    assert!(world.plan().steps.iter().any(|step| step.action.subject() == "chat-1"));
}

#[test]
fn the_cluster_is_stopping() {
    let mut world = World::settled(cluster(1, 1));
    world.cluster.stopping = true;
    assert_yaml_snapshot!(world.plan());
}

/// The names that leave, in the order in which they are chosen, when ever fewer are asked for.
fn removal_order(world: &World) -> Vec<String> {
    let mut world = world.clone();
    world.change(|spec| spec.decode.replicas = 1);
    world.plan().steps.iter().map(|step| step.action.subject().to_owned()).collect()
}

#[test]
fn the_idle_leave_before_the_busy_the_young_before_the_old_and_the_broken_before_all() {
    let mut world = World::settled(cluster(0, 5));
    for (name, in_flight, age) in
        [("chat-0", 3, 50), ("chat-1", 0, 50), ("chat-2", 0, 10), ("chat-3", 9, 50), ("chat-4", 9, 50)]
    {
        let created = world.now - SignedDuration::from_secs(age);
        let instance = world.instance(name);
        (instance.in_flight, instance.created) = (in_flight, created);
    }
    world.crash(3);
    assert_eq!(removal_order(&world), ["chat-3", "chat-2", "chat-1", "chat-0"]);
}

#[test]
fn a_draining_instance_is_taken_back_before_another_is_made() {
    let mut world = World::settled(cluster(0, 2));
    world.change(|spec| spec.decode.replicas = 1);
    world.instance("chat-0").in_flight = 5;
    world.instance("chat-1").in_flight = 3;
    world.reconcile();
    assert!(matches!(world.instance("chat-1").phase, Phase::Draining { .. }));
    world.change(|spec| spec.decode.replicas = 3);
    let steps: Vec<String> = world
        .reconcile()
        .steps
        .iter()
        .map(|step| format!("{} {}", step.action.verb(), step.action.subject()))
        .collect();
    assert_eq!(steps, ["undrain chat-1", "create chat-2"]);
}

#[test]
fn a_drain_ends_when_its_work_does_or_when_its_time_is_over() {
    let mut world = World::settled(cluster(0, 2));
    world.change(|spec| spec.decode.replicas = 1);
    world.instance("chat-0").in_flight = 1000;
    world.instance("chat-1").in_flight = 1000;
    world.reconcile();
    let plan = world.plan();
    assert_eq!(plan.requeue_after, Some(DRAIN_TIMEOUT));
    assert!(plan.steps.is_empty(), "its work goes on: {plan:?}");
    let mut idle = world.clone();
    for name in ["chat-0", "chat-1"] {
        idle.instance(name).in_flight = 0;
    }
    assert_eq!(idle.plan().steps[0].reason, "drained");
    world.now += DRAIN_TIMEOUT;
    assert_eq!(world.plan().steps[0].reason, "its 120 s to drain are over; 1000 requests left");
    assert_eq!(world.ready(Role::Decode), 1);
}
