//! What engines are told, and when.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use shoal_plan::Role;
use shoal_wire::{FleetSecret, rpc};
use std::net::SocketAddr;

use crate::cache::Cache;
use crate::children::SECRET_KEY;
use crate::children::tests::{children, cluster, fleet};
use crate::lease::Leadership;

use super::certificates::material;
use super::server::{Answer, on};
use super::{both, engine, gets_secret, known_secret, live, look, path, publishes, taking_away};

/// The cluster's engines, at loopback addresses of this test alone, as its pods say.
async fn engines(net: u8, pods: &mut [Pod]) -> Vec<engine::Running> {
    let secret = FleetSecret::parse(&known_secret().data.unwrap()[SECRET_KEY].0).unwrap();
    let mut running = Vec::new();
    for (number, pod) in pods.iter_mut().enumerate() {
        let address = SocketAddr::from(([127, 7, net, number as u8 + 1], 7070));
        pod.status.as_mut().unwrap().pod_ip = Some(address.ip().to_string());
        let name = pod.metadata.name.clone().unwrap();
        running.push(engine::start(&name, address, secret.clone(), Some(&material())).await);
    }
    running
}

fn has_role(engine: &engine::Running, role: rpc::Role) {
    engine.state.lock().role = i32::from(role);
}

#[tokio::test]
async fn an_engine_that_does_both_is_given_the_role_of_its_pod_under_the_epoch_of_the_lease() {
    let mut pods = both(true);
    let engines = engines(1, &mut pods).await;
    let cache = || Cache::of(pods.clone(), Some(&children(&fleet())));
    let script = |ready: &'static str| {
        vec![gets_secret(), publishes(move |status| assert_eq!(status["decode"]["summary"], ready))]
    };
    look(&cluster(), cache(), Leadership::held(42), script("0/1")).await.0.unwrap();
    let states: Vec<_> = engines.iter().map(|engine| engine.state.lock().clone()).collect();
    assert_eq!(
        states.iter().map(rpc::EngineState::role).collect::<Vec<_>>(),
        [rpc::Role::Prefill, rpc::Role::Decode]
    );
    assert!(states.iter().all(|state| state.epoch == 42));
    look(&cluster(), cache(), Leadership::held(42), script("1/1")).await.0.unwrap();
}

#[tokio::test]
async fn an_instance_too_many_is_marked_then_told_then_deleted_each_on_what_was_seen_before() {
    let mut pods = vec![
        live("chat-0", Role::Prefill, true),
        live("chat-1", Role::Decode, true),
        live("chat-2", Role::Decode, true),
    ];
    let engines = engines(2, &mut pods).await;
    for (engine, role) in engines.iter().zip([rpc::Role::Prefill, rpc::Role::Decode, rpc::Role::Decode]) {
        has_role(engine, role);
    }
    engines[1].state.lock().load = Some(rpc::Load { running: 3, ..rpc::Load::default() });
    let leadership = || Leadership::held(9);
    let cache = |pods: &[Pod]| Cache::of(pods.to_vec(), Some(&children(&fleet())));
    let victim = path("/api/v1", "pods/chat-2-1");

    // The idle one is marked; nobody is told yet.
    let marks = on(&format!("PATCH {victim}"), Answer::Stored).checking(|query, sent| {
        assert!(query.contains("fieldManager=shoal-operator") && query.contains("force=true"), "{query}");
        assert!(sent["metadata"]["annotations"]["shoal.dev/draining-since"].is_string());
        assert_eq!(sent["metadata"]["labels"]["shoal.dev/role"], "decode");
        assert_eq!(
            (&sent["metadata"]["uid"], &sent["metadata"]["resourceVersion"]),
            (&json!("uid-chat-2"), &json!("77"))
        );
    });
    let script = taking_away([marks, publishes(|_| ())]);
    look(&cluster(), cache(&pods), leadership(), script).await.0.unwrap();
    assert!(!engines[2].state.lock().draining);

    // The mark is seen, and the engine is told.
    let notes = pods[2].metadata.annotations.as_mut().unwrap();
    notes.insert("shoal.dev/draining-since".to_owned(), crate::clock::now().to_string());
    look(&cluster(), cache(&pods), leadership(), vec![gets_secret(), publishes(|_| ())]).await.0.unwrap();
    let told = engines[2].state.lock().clone();
    assert_eq!((told.draining, told.epoch), (true, 9));

    // It says that it drains and holds nothing.
    let gone = serde_json::to_value(&pods[2]).unwrap();
    let deletes = on(&format!("DELETE {victim}"), Answer::Object(gone)).checking(|_, sent| {
        assert_eq!(sent["gracePeriodSeconds"], 10);
        assert_eq!(sent["preconditions"], json!({ "uid": "uid-chat-2", "resourceVersion": "77" }));
    });
    let script = taking_away([deletes, publishes(|_| ())]);
    look(&cluster(), cache(&pods), leadership(), script).await.0.unwrap();
}

#[tokio::test]
async fn an_engine_that_drains_because_its_pod_was_deleted_is_not_told_to_go_on() {
    let mut pods = both(true);
    let engines = engines(3, &mut pods).await;
    has_role(&engines[0], rpc::Role::Prefill);
    has_role(&engines[1], rpc::Role::Decode);
    engines[1].state.lock().draining = true;
    let cache = |pods: &[Pod]| Cache::of(pods.to_vec(), Some(&children(&fleet())));
    let look_at = |pod: &Pod| {
        on(
            &format!("GET {}", path("/api/v1", "pods/chat-1-1")),
            Answer::Object(serde_json::to_value(pod).unwrap()),
        )
    };
    // The cache does not know yet that the pod is being deleted; the API server does.
    let mut leaving = pods[1].clone();
    leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:30:00Z")).unwrap();
    let script = vec![gets_secret(), look_at(&leaving), publishes(|_| ())];
    look(&cluster(), cache(&pods), Leadership::held(9), script).await.0.unwrap();
    assert!(engines[1].state.lock().draining);
    let script = vec![gets_secret(), look_at(&pods[1]), publishes(|_| ())];
    look(&cluster(), cache(&pods), Leadership::held(9), script).await.0.unwrap();
    assert!(!engines[1].state.lock().draining, "a drain that was taken back is taken back");
}
