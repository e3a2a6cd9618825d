//! What is seen, as tables: pod status in, phase out.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use shoal_plan::{Phase, Role};
use shoal_wire::rpc;
use std::{sync::Arc, time::Duration};

use super::{Facts, GatewayPod, InstanceFacts, SeenCertificates, instance, phase, pod, pod::State};
use crate::{
    actuate::Answer,
    cache::Live,
    children::tests::{children, fleet, pod as rendered},
};

const CREATED: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-01T00:01:00Z";
const END: &str = "2026-01-01T00:20:00Z";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn with_status(name: &str, attempt: u32, status: Value) -> Pod {
    let mut pod = rendered(&fleet(), name, attempt, Role::Decode);
    pod.metadata.creation_timestamp = serde_json::from_value(json!(CREATED)).unwrap();
    pod.metadata.uid = Some(format!("uid-{name}-{attempt}"));
    pod.metadata.resource_version = Some("9".to_owned());
    pod.status = serde_json::from_value(status).unwrap();
    pod
}

fn container(state: &Value) -> Value {
    json!({ "name": "engine", "image": "shoal:1", "imageID": "", "ready": false, "restartCount": 2, "state": state })
}

fn running(started: bool) -> Value {
    let mut found = container(&json!({ "running": { "startedAt": LATER } }));
    found["started"] = json!(started);
    json!({ "phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [found] })
}

fn waiting(reason: &str, message: &str, last: Option<Value>) -> Value {
    let mut found = container(&json!({ "waiting": { "reason": reason, "message": message } }));
    found["lastState"] = last.map_or(json!({}), |last| json!({ "terminated": last }));
    json!({ "phase": "Pending", "containerStatuses": [found] })
}

fn retrying(since: &str, why: &str) -> State {
    State::Retrying { since: time(since), why: why.to_owned() }
}

fn newest(pods: impl IntoIterator<Item = Pod>) -> (Vec<Arc<InstanceFacts>>, Vec<crate::calls::Identity>) {
    instance::newest(pods.into_iter().map(|pod| Arc::new(InstanceFacts::of(&pod.into()).unwrap())).collect())
}

#[test]
fn the_state_of_a_pod_follows_from_its_status() {
    let exit = json!({ "exitCode": 1, "startedAt": CREATED, "finishedAt": LATER, "reason": "Error",
        "message": "INFO loading\nError: cannot load\n\nCaused by:\n    no such file\n" });
    let oom = json!({ "exitCode": 137, "startedAt": CREATED, "finishedAt": LATER, "reason": "OOMKilled" });
    let killed = json!({ "exitCode": 137, "startedAt": CREATED, "finishedAt": LATER, "reason": "Error", "message": "words" });
    let unscheduled = json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/2 nodes are available", "lastTransitionTime": LATER }] });
    let assigned = json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "True",
        "lastTransitionTime": LATER }] });
    let mut taken = assigned.clone();
    taken["startTime"] = json!(LATER);
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory",
        "conditions": [{ "type": "DisruptionTarget", "status": "True", "lastTransitionTime": END }] });
    let mut ended =
        container(&json!({ "terminated": { "exitCode": 3, "startedAt": LATER, "finishedAt": END } }));
    ended["restartCount"] = json!(0);
    for (status, state) in [
        (json!({}), State::Starting { since: time(CREATED) }),
        (assigned, State::Assigned { since: time(LATER) }),
        (taken, State::Starting { since: time(CREATED) }),
        (json!({ "phase": "Pending" }), State::Starting { since: time(CREATED) }),
        (waiting("ContainerCreating", "", None), State::Starting { since: time(CREATED) }),
        (running(false), State::Starting { since: time(LATER) }),
        (running(true), State::Started { since: time(LATER) }),
        (unscheduled, retrying(LATER, "no node has room: 0/2 nodes are available")),
        (waiting("ErrImagePull", "not found", None), retrying(CREATED, "image shoal:1 cannot be pulled")),
        (waiting("ImagePullBackOff", "Back-off", None), retrying(CREATED, "image shoal:1 cannot be pulled")),
        (
            waiting("CreateContainerConfigError", "secret \"chat-fleet\" not found", None),
            retrying(CREATED, "CreateContainerConfigError: secret \"chat-fleet\" not found"),
        ),
        (
            waiting("CrashLoopBackOff", "back-off 20s", Some(exit.clone())),
            retrying(LATER, "crashed (exit 1: cannot load: no such file)"),
        ),
        (waiting("CrashLoopBackOff", "", Some(oom)), retrying(LATER, "crashed (out of memory)")),
        (waiting("CrashLoopBackOff", "", Some(killed)), retrying(LATER, "crashed (signal 9)")),
        (
            json!({ "phase": "Running", "containerStatuses": [container(&json!({ "terminated": exit }))] }),
            retrying(LATER, "crashed (exit 1: cannot load: no such file)"),
        ),
        (
            evicted,
            State::Ended {
                at: time(END),
                exit: "Evicted: low on memory".to_owned(),
                ran: SignedDuration::ZERO,
            },
        ),
        (
            json!({ "phase": "Failed", "containerStatuses": [ended] }),
            State::Ended { at: time(END), exit: "exit 3".to_owned(), ran: SignedDuration::from_mins(19) },
        ),
    ] {
        let found = pod::state(&with_status("chat-0", 1, status.clone()).into(), "engine");
        assert_eq!(found, state, "{status}");
    }
    let mut leaving = with_status("chat-0", 1, running(true));
    leaving.metadata.deletion_timestamp = serde_json::from_value(json!(END)).unwrap();
    leaving.metadata.deletion_grace_period_seconds = Some(60);
    assert_eq!(
        pod::state(&leaving.into(), "engine"),
        State::Stopping { since: time("2026-01-01T00:19:00Z") }
    );
}

fn answer(silent_seconds: u64, said: Option<(rpc::Role, bool, u32)>) -> Answer {
    let said = said.map(|(role, draining, running)| rpc::EngineState {
        role: i32::from(role),
        draining,
        load: Some(rpc::Load { running, ..rpc::Load::default() }),
        ..rpc::EngineState::default()
    });
    Answer { silence: Duration::from_secs(silent_seconds), said }
}

#[test]
fn the_phase_of_an_instance_is_its_pods_state_and_its_engines_word() {
    let (since, now) = (time(LATER), time(END));
    let started = State::Started { since };
    let decode = |draining, running| Some((rpc::Role::Decode, draining, running));
    for (state, draining, said, expected) in [
        (&started, None, None, (Phase::Starting { since }, 0)),
        (&started, None, Some(answer(0, None)), (Phase::Starting { since }, 0)),
        (&started, None, Some(answer(0, Some((rpc::Role::Mixed, false, 1)))), (Phase::Starting { since }, 1)),
        (&started, None, Some(answer(0, decode(false, 4))), (Phase::Ready { since }, 4)),
        (&started, None, Some(answer(9, decode(false, 4))), (Phase::Ready { since }, 4)),
        (
            &started,
            None,
            Some(answer(10, decode(false, 4))),
            (Phase::Unresponsive { since: now - SignedDuration::from_secs(10) }, 4),
        ),
        (
            &started,
            None,
            Some(answer(60, None)),
            (Phase::Unresponsive { since: now - SignedDuration::from_secs(60) }, 0),
        ),
        (&started, None, Some(answer(0, decode(true, 0))), (Phase::Starting { since }, 0)),
        // Told to drain, not known to: it may still be given something.
        (&started, Some(since), Some(answer(0, decode(false, 0))), (Phase::Draining { since }, 1)),
        (&started, Some(since), None, (Phase::Draining { since }, 1)),
        (&started, Some(since), Some(answer(0, decode(true, 0))), (Phase::Draining { since }, 0)),
        (&started, Some(since), Some(answer(99, decode(true, 3))), (Phase::Draining { since }, 3)),
        (&retrying(LATER, "why"), Some(since), None, (Phase::Draining { since }, 0)),
        (&retrying(LATER, "why"), None, None, (Phase::Retrying { since, why: "why".to_owned() }, 0)),
        (&State::Assigned { since: now }, None, None, (Phase::Starting { since: now }, 0)),
        (&State::Assigned { since }, None, None, (Phase::Unresponsive { since }, 0)),
        (&State::Starting { since }, None, None, (Phase::Starting { since }, 0)),
        (&State::Stopping { since }, Some(since), None, (Phase::Stopping { since }, 0)),
    ] {
        let found = phase::of(state, Role::Decode, draining, said.as_ref(), now);
        assert_eq!(found, expected, "{state:?} {draining:?} {said:?}");
    }
}

#[test]
fn a_container_that_was_started_again_owes_no_answer_for_the_time_before() {
    let since = time(LATER);
    let silent = answer(60, Some((rpc::Role::Decode, false, 0)));
    let phase = |seconds| {
        let now = since + SignedDuration::from_secs(seconds);
        phase::of(&State::Started { since }, Role::Decode, None, Some(&silent), now).0
    };
    assert_eq!(phase(9), Phase::Ready { since });
    assert_eq!(phase(10), Phase::Unresponsive { since });
}

/// Two instances of which the first is silent, and a gateway that is ready or not.
fn seen(second_silent_seconds: u64, serving: bool) -> Vec<&'static str> {
    let fleet = fleet();
    let pods = ["chat-0", "chat-1"].map(|name| with_status(name, 1, running(true)));
    let mut deployment = children(&fleet).gateway;
    deployment.metadata.creation_timestamp = pods[0].metadata.creation_timestamp.clone();
    let mut gateway = Pod::default();
    gateway.metadata.labels =
        deployment.spec.as_ref().unwrap().template.metadata.as_ref().unwrap().labels.clone();
    gateway.status = serde_json::from_value(
        json!({ "conditions": [{ "type": "Ready", "status": if serving { "True" } else { "False" } }] }),
    )
    .unwrap();
    let facts = Facts {
        instances: newest(pods).0,
        superseded: Vec::new(),
        gateway: Some(super::gateway::facts(
            &fleet,
            &deployment,
            &[Arc::new(GatewayPod::of(&gateway.into()).unwrap())],
        )),
        live: Live::default(),
        secret: None,
        lost_secret: None,
        certificates: SeenCertificates::default(),
        tls: true,
        status: None,
    };
    let decode = Some((rpc::Role::Decode, false, 0));
    let answers = [
        ("chat-0-1".to_owned(), answer(60, decode)),
        ("chat-1-1".to_owned(), answer(second_silent_seconds, decode)),
    ];
    let observed = facts.observed(&answers.into(), time(END));
    observed.instances.iter().map(|instance| instance.phase.as_str()).collect()
}

#[test]
fn engines_that_only_the_operator_cannot_hear_are_not_taken_for_dead() {
    assert_eq!(seen(0, true), ["Unresponsive", "Ready"], "it hears one, so the other one is silent");
    assert_eq!(seen(60, false), ["Unresponsive", "Unresponsive"], "nobody hears them");
    assert_eq!(seen(60, true), ["Retrying", "Retrying"], "the gateway hears them");
}

#[test]
fn a_pod_whose_model_is_on_its_way_is_fetching_and_a_failed_step_is_named() {
    let step = |state: Value, last: Value| {
        let status = json!({ "phase": "Pending", "podIP": "10.0.0.7", "startTime": CREATED,
            "initContainerStatuses": [{ "name": "fetch", "image": "fetch:1", "imageID": "", "ready": false,
                "restartCount": 0, "state": state, "lastState": last }],
            "containerStatuses": [container(&json!({ "waiting": { "reason": "PodInitializing" } }))] });
        newest([with_status("chat-0", 1, status)]).0.remove(0)
    };
    let failure = json!({ "terminated": { "exitCode": 1, "startedAt": CREATED, "finishedAt": LATER,
        "reason": "Error", "message": "Error: a: https://host/a answered 404 Not Found; there is no such file\n" } });
    let why = "the model cannot be fetched (exit 1: a: https://host/a answered 404 Not Found; there is no such file)";
    let running = step(json!({ "running": { "startedAt": LATER } }), json!({}));
    assert_eq!(running.state, State::Fetching { since: time(LATER) });
    assert_eq!(running.fetching().as_deref(), Some("10.0.0.7:7072"));
    let waits = step(json!({ "waiting": { "reason": "CrashLoopBackOff" } }), failure.clone());
    assert_eq!(waits.state, retrying(LATER, why));
    assert_eq!(step(failure, json!({})).state, retrying(LATER, why));
    let done = json!({ "terminated": { "exitCode": 0, "startedAt": CREATED, "finishedAt": LATER } });
    assert_eq!(step(done, json!({})).state, State::Starting { since: time(CREATED) });
}

#[test]
fn an_instance_is_its_newest_pod_and_the_others_are_to_go_once() {
    let old = with_status("chat-0", 1, json!({ "phase": "Failed" }));
    let new = with_status("chat-0", 2, running(true));
    let mut leaving = with_status("chat-1", 9, running(true));
    leaving.metadata.deletion_timestamp = serde_json::from_value(json!(END)).unwrap();
    let newer = with_status("chat-1", 10, running(true));
    let (instances, superseded) = newest([newer, new, leaving, old]);
    let names: Vec<(&str, &str, u32)> = instances
        .iter()
        .map(|found| (found.name.as_str(), found.identity.name.as_str(), found.attempt))
        .collect();
    assert_eq!(names, [("chat-0", "chat-0-2", 2), ("chat-1", "chat-1-10", 10)]);
    assert_eq!(superseded.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["chat-0-1"]);
}

fn crashes(inherited: u32, status: Value) -> u32 {
    let mut pod = with_status("chat-0", 2, status);
    let notes = pod.metadata.annotations.as_mut().unwrap();
    notes.insert("shoal.dev/crashes".to_owned(), inherited.to_string());
    newest([pod]).0[0].crashes.count
}

#[test]
fn crashes_are_counted_from_what_the_api_server_keeps() {
    assert_eq!(crashes(0, running(true)), 2, "the node mended two");
    assert_eq!(crashes(3, running(true)), 5, "and three were inherited");
    let ended = |began: &str| {
        let state = json!({ "terminated": { "exitCode": 1, "startedAt": began, "finishedAt": END } });
        json!({ "phase": "Failed", "containerStatuses": [container(&state)] })
    };
    assert_eq!(crashes(3, ended("2026-01-01T00:19:00Z")), 6, "the last one ended it");
    assert_eq!(crashes(3, ended("2026-01-01T00:10:00Z")), 1, "it had recovered before");
}

#[test]
fn a_pod_that_lost_its_marks_is_still_that_instance_made_from_something_else() {
    let mut pod = with_status("chat-0", 2, running(true));
    pod.metadata.labels = None;
    pod.metadata.annotations = None;
    let found = &newest([pod]).0[0];
    assert_eq!((found.name.as_str(), found.attempt, found.template.as_str()), ("chat-0", 2, ""));
    assert_eq!(found.address.as_deref(), Some("10.0.0.7:7070"));
}
