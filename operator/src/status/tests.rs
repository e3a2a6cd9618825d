//! Whole objects with the statuses that this operator writes. The snapshots are what `e2e/gitops` gives to Argo CD's
//! health check and to kstatus: review a change of them together with the answers there.

use insta::{assert_yaml_snapshot, with_settings};
use jiff::Timestamp;
use serde_json::json;
use shoal_plan::{CrashHistory, Gateway, Instance, Observed, Phase, Role, model_digest, plan};

use super::*;
use crate::{
    children::tests::{cluster, surroundings, template},
    fleet::Fleet,
    validate::validate,
};

const SAMPLES: &str = "../../../e2e/gitops/samples";

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn fleet() -> Fleet {
    validate(&cluster(), &surroundings()).unwrap()
}

/// One instance of each role and a gateway, all of them ready.
fn settled(fleet: &Fleet) -> Observed {
    let template = template(fleet);
    let instance = |name: &str, role| Instance {
        name: name.to_owned(),
        role,
        template: template.hash(),
        model: model_digest(&template.model),
        created: now(),
        phase: Phase::Ready { since: now() },
        crashes: CrashHistory::default(),
        in_flight: 0,
    };
    let gateway = Gateway {
        model: model_digest(&template.model),
        port: 8000,
        phase: Phase::Ready { since: now() },
        crashes: CrashHistory::default(),
        serving: true,
        endpoint: "http://chat-gateway.team.svc:8000/v1".to_owned(),
        rolls: true,
        trouble: None,
    };
    Observed {
        instances: vec![instance("chat-0", Role::Prefill), instance("chat-1", Role::Decode)],
        gateway: Some(gateway),
        status: None,
    }
}

/// The object once the plan's status is published.
fn published(fleet: &Fleet, observed: &Observed, stall: Option<&Stall>) -> ServingCluster {
    let status = plan(&fleet.cluster, observed, now()).status;
    let object = cluster();
    ServingCluster { status: Some(with_stall(&object, status, stall)), ..object }
}

fn record(name: &str, object: &ServingCluster) {
    let mut object = object.clone();
    at_once(object.status.iter_mut().flat_map(|status| &mut status.conditions));
    with_settings!({ snapshot_path => SAMPLES, prepend_module_to_snapshot => false, omit_expression => true }, {
        assert_yaml_snapshot!(name, object);
    });
}

/// All conditions hold since one moment: some take their time from the clock.
fn at_once<'a>(conditions: impl Iterator<Item = &'a mut Condition>) {
    conditions.for_each(|condition| condition.last_transition_time = time_from_unix(now().as_second()));
}

fn record_role(name: &str, fleet: &Fleet, observed: &Observed, stall: Option<&Stall>) {
    let mut object: ServingRole = serde_json::from_value(json!({
        "apiVersion": API_VERSION, "kind": "ServingRole",
        "metadata": { "name": "chat-decode", "namespace": "team", "generation": 2 },
        "spec": { "role": "decode", "replicas": fleet.cluster.spec.decode.replicas },
    }))
    .unwrap();
    let mut status = of_role(fleet, Role::Decode, &object, &observed.instances, stall);
    at_once(status.conditions.iter_mut());
    object.status = Some(status);
    with_settings!({ snapshot_path => SAMPLES, prepend_module_to_snapshot => false, omit_expression => true }, {
        assert_yaml_snapshot!(name, object);
    });
}

#[test]
fn a_role_that_is_complete_scales_or_may_not() {
    let mut fleet = fleet();
    let observed = settled(&fleet);
    record_role("role-ready", &fleet, &observed, None);
    fleet.cluster.spec.decode.replicas = 3;
    record_role("role-scaling", &fleet, &observed, None);
    let stall = Stall { reason: "Refused", message: "both roles together must be at most 4096".to_owned() };
    record_role("role-stalled", &fleet, &observed, Some(&stall));
}

#[test]
fn a_serving_cluster_that_is_complete() {
    let fleet = fleet();
    record("ready", &published(&fleet, &settled(&fleet), None));
}

#[test]
fn a_first_start() {
    let fleet = fleet();
    record("starting", &published(&fleet, &Observed::default(), None));
}

#[test]
fn a_rollout_beside_instances_that_serve() {
    let mut fleet = fleet();
    let observed = settled(&fleet);
    fleet.cluster.spec.engine.max_batch = 8;
    record("rolling", &published(&fleet, &observed, None));
}

#[test]
fn an_instance_that_cannot_run_beside_one_that_serves() {
    let fleet = fleet();
    let mut observed = settled(&fleet);
    let why = "image shoal:1 cannot be pulled".to_owned();
    observed.instances[0].phase = Phase::Retrying { since: now(), why };
    record("degraded", &published(&fleet, &observed, None));
}

#[test]
fn nobody_left_to_decode() {
    let fleet = fleet();
    let mut observed = settled(&fleet);
    let why = "crashed (exit 1), restarts in 10 s".to_owned();
    observed.instances[1].phase = Phase::Retrying { since: now(), why };
    observed.gateway.as_mut().unwrap().serving = false;
    record("down", &published(&fleet, &observed, None));
}

#[test]
fn a_write_that_is_refused_while_the_rest_serves() {
    let mut fleet = fleet();
    let observed = settled(&fleet);
    fleet.cluster.spec.decode.replicas = 2;
    let stall =
        Stall { reason: "Refused", message: "pods \"chat-2-1\" is forbidden: exceeded quota".to_owned() };
    let object = published(&fleet, &observed, Some(&stall));
    let kinds: Vec<&str> =
        object.status.as_ref().unwrap().conditions.iter().map(|found| found.type_.as_str()).collect();
    assert_eq!(
        kinds,
        ["Ready", "Progressing", "Degraded", "Stalled"],
        "Reconciling would hide that it is stalled"
    );
    record("stalled", &object);
}

#[test]
fn a_spec_that_was_never_accepted() {
    let object = cluster();
    let stall = Stall { reason: "InvalidSpec", message: "spec.decode.replicas: must be 1 to 64".to_owned() };
    record("invalid", &ServingCluster { status: Some(unplanned(&object, &stall)), ..object });
}

/// What the API server makes of a new object by the default in the definition.
#[test]
fn an_object_that_no_operator_has_seen() {
    let definition = serde_json::to_value(<ServingCluster as shoal_crds::CustomResourceExt>::crd()).unwrap();
    let properties = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let default = properties["status"]["default"].clone();
    assert_eq!(default, json!({ "observedGeneration": -1 }));
    record("unseen", &ServingCluster { status: serde_json::from_value(default).unwrap(), ..cluster() });
}

#[test]
fn progress_that_ends_takes_its_condition_along() {
    let fleet = fleet();
    let starting = published(&fleet, &Observed::default(), None);
    let kinds = |status: &ServingClusterStatus| {
        status.conditions.iter().map(|found| found.type_.clone()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(starting.status.as_ref().unwrap()), ["Ready", "Progressing", "Degraded", "Reconciling"]);
    let observed = Observed { status: starting.status.clone(), ..settled(&fleet) };
    let done = with_stall(&starting, plan(&fleet.cluster, &observed, now()).status, None);
    assert_eq!(kinds(&done), ["Ready", "Progressing", "Degraded"]);
}

#[test]
fn numbers_on_the_way_are_no_edge_and_everything_that_is_waited_for_is() {
    let status = |ready: i32| {
        json!({
            "observedGeneration": 1,
            "conditions": [{ "type": "Progressing", "status": "True", "reason": "Reconciling", "message": ready }],
            "decode": { "desired": 1000, "ready": ready },
        })
    };
    assert!(!is_edge(&status(1), &status(999)));
    for (pointer, value) in [
        ("/observedGeneration", json!(2)),
        ("/conditions/0/status", json!("False")),
        ("/conditions/0/reason", json!("Complete")),
        ("/decode/desired", json!(500)),
    ] {
        let mut other = status(1);
        *other.pointer_mut(pointer).unwrap() = value;
        assert!(is_edge(&status(1), &other), "{pointer}");
    }
}
