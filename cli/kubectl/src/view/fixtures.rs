//! Objects as an API server gives them, of a fleet in trouble: one instance ready, one stopping, one whose model
//! is missing, one that no node takes, one without an image; a gateway.

#![allow(clippy::needless_pass_by_value, reason = "values are written where they are given")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::{Value, json};
use shoal_crds::ServingCluster;

use crate::cluster::{Exposition, Fleet, Unseen};

pub(crate) fn now() -> Timestamp {
    "2026-03-01T12:10:00Z".parse().unwrap_or_default()
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn cluster() -> ServingCluster {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({ "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-03-01T12:05:00Z", "observedGeneration": 2 })
    };
    read(json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": "ServingCluster",
        "metadata": { "name": "chat", "namespace": "team", "uid": "u", "generation": 3,
            "creationTimestamp": "2026-03-01T12:00:00Z" },
        "spec": { "model": { "name": "smollm2", "source": { "path": "/models/absent.gguf" } } },
        "status": {
            "observedGeneration": 2,
            "conditions": [
                condition("Ready", "False", "NoDecodeInstance", "no decode instance is ready"),
                condition("Progressing", "False", "Blocked", "waiting for chat-2"),
                condition("Degraded", "True", "InstanceFailed", "chat-2 crashed (exit 1)"),
            ],
            "prefill": { "desired": 1, "ready": 1, "summary": "1/1" },
            "decode": { "desired": 3, "ready": 0, "summary": "0/3" }
        }
    }))
}

pub(crate) fn pod(name: &str, role: &str, status: Value) -> Pod {
    let (component, container, port) = match role {
        "gateway" => ("gateway", "gateway", "http"),
        _ => ("instance", "engine", "metrics"),
    };
    read(json!({
        "metadata": { "name": name, "namespace": "team", "uid": name, "creationTimestamp": "2026-03-01T12:01:00Z",
            "labels": { "shoal.dev/cluster": "chat", "app.kubernetes.io/component": component,
                "shoal.dev/role": role } },
        "spec": { "nodeName": "node-1", "containers": [{ "name": container,
            "image": format!("localhost/shoal-{container}:0.1.0"),
            "ports": [{ "name": port, "containerPort": 7072 }] }] },
        "status": status
    }))
}

fn container(name: &str, state: Value) -> Value {
    let ready = state.get("running").is_some();
    json!({ "phase": "Running", "containerStatuses": [{ "name": name, "image": format!("localhost/shoal-{name}:0.1.0"),
        "imageID": "", "ready": ready, "started": ready, "restartCount": 0, "state": state }] })
}

pub(crate) fn running(name: &str) -> Value {
    container(name, json!({ "running": { "startedAt": "2026-03-01T12:02:00Z" } }))
}

pub(crate) fn crashed() -> Value {
    let mut status =
        container("engine", json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } }));
    let found = &mut status["containerStatuses"][0];
    found["restartCount"] = json!(4);
    found["lastState"] = json!({ "terminated": { "exitCode": 1, "reason": "Error",
        "message": "INFO loading\nError: cannot load\n\nCaused by:\n    no such file\n" } });
    status
}

pub(crate) fn without_image() -> Value {
    container(
        "engine",
        json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } }),
    )
}

pub(crate) fn unschedulable() -> Value {
    json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/2 nodes are available: 2 Insufficient memory." }] })
}

pub(crate) fn event(kind: &str, name: &str, reason: &str, message: &str) -> Event {
    read(json!({
        "metadata": { "name": "e", "namespace": "team" }, "type": "Normal", "reason": reason, "message": message,
        "involvedObject": { "kind": kind, "name": name, "namespace": "team" },
        "eventTime": "2026-03-01T12:08:00.000000Z"
    }))
}

pub(crate) const FIGURES: &str = "\
shoal_engine_running_sequences 3
shoal_engine_waiting_sequences 1
shoal_engine_queued_prefill_tokens 512
shoal_engine_kv_pages{state=\"cached\"} 100
shoal_engine_kv_pages{state=\"free\"} 60
shoal_engine_kv_pages{state=\"used\"} 40
";

pub(crate) fn fleet() -> Fleet {
    let mut leaving = pod("chat-1-1", "decode", running("engine"));
    leaving.metadata.deletion_timestamp = read(json!("2026-03-01T12:09:00Z"));
    let mut pending = pod("chat-3-1", "decode", unschedulable());
    if let Some(spec) = pending.spec.as_mut() {
        spec.node_name = None;
    }
    let mut unseen = Unseen::default();
    unseen.say("forbidden: list services in namespace team");
    Fleet {
        cluster: cluster(),
        pods: vec![
            pod("chat-0-1", "prefill", running("engine")),
            leaving,
            pod("chat-2-1", "decode", crashed()),
            pending,
            pod("chat-4-1", "decode", without_image()),
            pod("chat-gateway-5d9f-x2x", "gateway", running("gateway")),
        ],
        events: vec![
            event(
                "ServingCluster",
                "chat",
                "CreateInstance",
                "create chat-2: 3 decode instances are asked for",
            ),
            event(
                "ServingCluster",
                "chat",
                "DeleteInstance",
                "delete chat-1: fewer decode instances are asked for",
            ),
        ],
        figures: BTreeMap::from([("chat-0-1".to_owned(), Exposition::read(FIGURES))]),
        unseen,
    }
}
