//! Certificates that are made anew, and fleets whose engines have none yet.

use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::{Value, json};
use shoal_plan::Role;
use shoal_wire::{FleetSecret, rpc, tls::Material};

use crate::{
    cache::Cache,
    certificates::made_at,
    children::{
        SECRET_KEY,
        tests::{children, cluster, fleet},
    },
    clock,
    error::Class,
    lease::Leadership,
    observe::SeenCertificates,
};

use super::{
    asks_cluster, both, condition, engine, gets_secret, known_certificates, known_secret, live, look,
    look_knowing, path, pods, publishes,
    server::{Answer, Exchange, on},
};

/// What processes of the fleet have in all tests.
pub(super) fn material() -> Material {
    let [authority, leaf] = known_certificates();
    let seen = SeenCertificates::of(&fleet(), Some(authority), Some(leaf), clock::now());
    seen.leaf.unwrap().material
}

fn at(days_ago: i64) -> Timestamp {
    clock::now() - SignedDuration::from_hours(24 * days_ago)
}

fn gets(object: &str, found: Option<&Secret>) -> Exchange {
    let answer = found
        .map_or(Answer::Error(404, "NotFound"), |found| Answer::Object(serde_json::to_value(found).unwrap()));
    on(&format!("GET {}", path("/api/v1", object)), answer)
}

/// One look of a process that reads these two; `writes` come before the status.
async fn reads(authority: Option<&Secret>, leaf: Option<&Secret>, writes: Vec<Exchange>) {
    let mut script = vec![gets_secret(), gets("secrets/chat-ca", authority), gets("secrets/chat-tls", leaf)];
    script.extend(writes);
    script.push(publishes(|_| ()));
    let cache = Cache::of(both(false), Some(&children(&fleet())));
    look_knowing(&cluster(), cache, Leadership::held(1), None, script).await.0.unwrap();
}

fn applies(object: &'static str, check: impl FnOnce(&Value) + Send + 'static) -> Exchange {
    on(&format!("PATCH {}", path("/api/v1", object)), Answer::Stored).checking(move |query, sent| {
        assert!(query.contains("fieldManager=shoal-operator") && query.contains("force=true"), "{query}");
        // That very object as it was read.
        assert_eq!(sent["metadata"]["resourceVersion"], "7");
        assert!(sent["metadata"]["uid"].is_string());
        check(sent);
    })
}

fn creates(name: &'static str, check: impl FnOnce(&Value) + Send + 'static) -> Exchange {
    on(&format!("POST {}", path("/api/v1", "secrets")), Answer::Stored).checking(move |_, sent| {
        assert_eq!(sent["metadata"]["name"], name);
        check(sent);
    })
}

fn data(secret: &Secret, key: &str) -> Value {
    serde_json::to_value(secret).unwrap()["data"][key].clone()
}

fn authorities(sent: &Value) -> usize {
    let seen = SeenCertificates::of(
        &fleet(),
        None,
        Some(&serde_json::from_value(sent.clone()).unwrap()),
        clock::now(),
    );
    assert!(seen.leaf.is_some(), "processes can use it");
    seen.trusted.len()
}

#[tokio::test]
async fn certificates_that_are_young_are_read_and_left_alone() {
    let [authority, leaf] = known_certificates();
    reads(Some(authority), Some(leaf), Vec::new()).await;
}

#[tokio::test]
async fn a_leaf_at_two_thirds_of_its_life_is_made_anew_by_the_same_authority() {
    let [authority, leaf] = made_at(&fleet(), at(21));
    let old = data(&leaf, "tls.crt");
    let bundle = data(&leaf, "ca.crt");
    let renewed = applies("secrets/chat-tls", move |sent| {
        assert_ne!(sent["data"]["tls.crt"], old);
        assert_eq!(sent["data"]["ca.crt"], bundle);
        assert_eq!(authorities(sent), 1);
    });
    reads(Some(&authority), Some(&leaf), vec![renewed]).await;
}

#[tokio::test]
async fn a_lost_or_damaged_leaf_is_made_anew_by_the_same_authority() {
    let [authority, leaf] = known_certificates();
    let created = creates("chat-tls", |sent| assert_eq!(authorities(sent), 1));
    reads(Some(authority), None, vec![asks_cluster(&cluster()), created]).await;
    for key in ["tls.crt", "tls.key", "ca.crt"] {
        let mut damaged = leaf.clone();
        damaged.data.as_mut().unwrap().get_mut(key).unwrap().0.truncate(100);
        let mended = applies("secrets/chat-tls", |sent| assert_eq!(authorities(sent), 1));
        reads(Some(authority), Some(&damaged), vec![mended]).await;
    }
}

#[tokio::test]
async fn a_lost_authority_gets_a_successor_that_is_trusted_before_it_signs() {
    let [authority, leaf] = known_certificates();
    let bundled = || {
        let (certificate, bundle) = (data(leaf, "tls.crt"), data(leaf, "ca.crt"));
        applies("secrets/chat-tls", move |sent| {
            assert_eq!(sent["data"]["tls.crt"], certificate, "processes go on with what they have");
            assert_ne!(sent["data"]["ca.crt"], bundle);
            assert_eq!(authorities(sent), 2);
        })
    };
    let created = creates("chat-ca", |sent| assert!(sent["data"]["tls.key"].is_string()));
    reads(None, Some(leaf), vec![bundled(), asks_cluster(&cluster()), created]).await;
    let mut damaged = authority.clone();
    let another_key = leaf.data.as_ref().unwrap()["tls.key"].clone();
    damaged.data.as_mut().unwrap().insert("tls.key".to_owned(), another_key.clone());
    let mended = applies("secrets/chat-ca", move |sent| {
        assert_ne!(sent["data"]["tls.key"], serde_json::to_value(&another_key).unwrap());
    });
    reads(Some(&damaged), Some(leaf), vec![bundled(), mended]).await;
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_left_to_them_and_told() {
    let [authority, leaf] = known_certificates();
    let mut foreign = leaf.clone();
    foreign.metadata.owner_references = None;
    let script = vec![
        gets_secret(),
        gets("secrets/chat-ca", Some(authority)),
        gets("secrets/chat-tls", Some(&foreign)),
        publishes(|status| {
            let stalled = condition(status, "Stalled");
            assert_eq!(stalled["reason"], "NameTaken");
            assert!(stalled["message"].as_str().unwrap().contains("Secret chat-tls"), "{stalled}");
        }),
    ];
    let cache = Cache::of(both(false), Some(&children(&fleet())));
    let (outcome, ..) = look_knowing(&cluster(), cache, Leadership::held(1), None, script).await;
    assert_eq!(outcome.unwrap_err().class(), Class::Transient);
}

/// As the operator before had it: without the option and the files.
fn without_tls(mut pod: Pod) -> Pod {
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    let args = container.args.as_mut().unwrap();
    let at = args.iter().position(|argument| argument == "--tls-dir").unwrap();
    args.drain(at..at + 2);
    let mut old = shoal_plan::Template::of(&fleet().cluster.spec, "shoal:1");
    old.tls = false;
    let notes = pod.metadata.annotations.as_mut().unwrap();
    notes.remove("shoal.dev/tls").unwrap();
    notes.insert("shoal.dev/template-hash".to_owned(), old.hash());
    pod
}

fn gateway(within_tls: bool) -> Pod {
    let template = children(&fleet()).gateway.spec.unwrap().template;
    let mut pod = Pod { metadata: template.metadata.unwrap(), spec: template.spec, status: None };
    pod.metadata.name = Some(format!("chat-gateway-{within_tls}"));
    pod.metadata.namespace = Some("team".to_owned());
    if within_tls { pod } else { without_tls(pod) }
}

#[tokio::test]
async fn engines_without_tls_are_asked_without_and_replaced_when_no_gateway_is_left_that_knows_none() {
    let secret = FleetSecret::parse(&known_secret().data.unwrap()[SECRET_KEY].0).unwrap();
    let mut instances =
        [without_tls(live("chat-0", Role::Prefill, true)), without_tls(live("chat-1", Role::Decode, true))];
    let mut engines = Vec::new();
    for (number, pod) in instances.iter_mut().enumerate() {
        let address = SocketAddr::from(([127, 7, 9, number as u8 + 1], 7070));
        pod.status.as_mut().unwrap().pod_ip = Some(address.ip().to_string());
        let name = pod.metadata.name.clone().unwrap();
        let engine = engine::start(&name, address, secret.clone(), None).await;
        engine.state.lock().role =
            i32::from(if number == 0 { rpc::Role::Prefill } else { rpc::Role::Decode });
        engines.push(engine);
    }
    let with = |gateways: &[bool]| {
        let pods = instances.iter().cloned().chain(gateways.iter().map(|tls| gateway(*tls))).collect();
        Cache::of(pods, Some(&children(&fleet())))
    };
    let ready = || publishes(|status| assert_eq!(status["decode"]["summary"], "1/1"));
    look(&cluster(), with(&[false, true]), Leadership::held(1), vec![gets_secret(), ready()])
        .await
        .0
        .unwrap();
    let replacement = || {
        on(&pods(), Answer::Stored).checking(|_, sent| {
            let args = sent["spec"]["containers"][0]["args"].as_array().unwrap();
            assert!(args.contains(&json!("--tls-dir")), "{args:?}");
            assert_eq!(sent["spec"]["volumes"][1]["secret"]["secretName"], "chat-tls");
        })
    };
    // One of each role.
    let script = vec![gets_secret(), asks_cluster(&cluster()), replacement(), replacement(), ready()];
    look(&cluster(), with(&[true, true]), Leadership::held(1), script).await.0.unwrap();
}
