//! A scripted API server: exactly which calls one look makes, in which order, with which words in them.

mod certificates;
mod counts;
mod engine;
mod instances;
mod roles;
mod scale;
mod secret;
mod server;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::runtime::controller::Action;
use serde_json::{Value, json};
use shoal_crds::{ServingCluster, ServingRole};
use shoal_plan::Role;
use std::sync::{Arc, OnceLock};

use crate::cache::Cache;
use crate::calls::Calls;
use crate::certificates::made_at;
use crate::children::tests::{SECRET_UID, UID, children, cluster, fleet, pod, surroundings};
use crate::children::{Children, known};
use crate::context::Context;
use crate::error::Class;
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::observe::SeenCertificates;
use crate::reconcile::{ReconcileError, reconcile};

use server::{Answer, Exchange, on, server};

/// One look at `cluster` with `cache`, against a server that answers as the script says. The certificates are known.
async fn look(
    cluster: &ServingCluster,
    cache: Cache,
    leadership: Leadership,
    script: Vec<Exchange>,
) -> (Result<Action, ReconcileError>, Arc<Metrics>) {
    let (outcome, metrics, _) = counted(cluster, cache, leadership, script).await;
    (outcome, metrics)
}

/// The same, with the number of calls to the API server that it made, events among them.
async fn counted(
    cluster: &ServingCluster,
    cache: Cache,
    leadership: Leadership,
    script: Vec<Exchange>,
) -> (Result<Action, ReconcileError>, Arc<Metrics>, u32) {
    let [authority, leaf] = known_certificates();
    let seen = SeenCertificates::of(&fleet(), Some(authority), Some(leaf), crate::clock::now());
    look_knowing(cluster, cache, leadership, Some(seen), script).await
}

/// The same, for a process that has not read the certificates if there are none.
async fn look_knowing(
    cluster: &ServingCluster,
    cache: Cache,
    leadership: Leadership,
    certificates: Option<SeenCertificates>,
    script: Vec<Exchange>,
) -> (Result<Action, ReconcileError>, Arc<Metrics>, u32) {
    let reads = |context: &Context| {
        certificates.map(|seen| context.identities.remember(UID, seen));
    };
    look_after(cluster, cache, leadership, reads, script).await
}

/// The same, for a process that has done something before.
async fn look_after(
    cluster: &ServingCluster,
    cache: Cache,
    leadership: Leadership,
    before: impl FnOnce(&Context),
    script: Vec<Exchange>,
) -> (Result<Action, ReconcileError>, Arc<Metrics>, u32) {
    let (client, serving) = server(script);
    let metrics = Arc::new(Metrics::new().unwrap());
    let context =
        Context::new(client.clone(), cache, surroundings(), leadership.clone(), Arc::clone(&metrics), "op-1");
    let calls = Calls::new(client, leadership, Arc::clone(&metrics));
    before(&context);
    let outcome = Box::pin(reconcile(cluster, &context, &calls)).await;
    let count = calls.count();
    drop((context, calls));
    serving.await.unwrap();
    (outcome, metrics, count)
}

/// The same in all tests, because making keys takes time.
fn known_certificates() -> &'static [Secret; 2] {
    static KNOWN: OnceLock<[Secret; 2]> = OnceLock::new();
    KNOWN.get_or_init(|| made_at(&fleet(), crate::clock::now()))
}

const SHOAL: &str = "/apis/shoal.dev/v1alpha1";

const GROUPS: [(&str, &str); 11] = [
    (SHOAL, "servingroles/chat-prefill"),
    (SHOAL, "servingroles/chat-decode"),
    ("/api/v1", "serviceaccounts/chat-gateway"),
    ("/apis/rbac.authorization.k8s.io/v1", "roles/chat-gateway"),
    ("/apis/rbac.authorization.k8s.io/v1", "rolebindings/chat-gateway"),
    ("/apis/networking.k8s.io/v1", "networkpolicies/chat-instances"),
    ("/apis/networking.k8s.io/v1", "networkpolicies/chat-gateway"),
    ("/api/v1", "services/chat-instances"),
    ("/api/v1", "services/chat-gateway"),
    ("/apis/policy/v1", "poddisruptionbudgets/chat-gateway"),
    ("/apis/apps/v1", "deployments/chat-gateway"),
];

fn path(group: &str, object: &str) -> String {
    format!("{group}/namespaces/team/{object}")
}

fn secret_path() -> String {
    path("/api/v1", "secrets/chat-fleet")
}

fn status_path() -> String {
    path(SHOAL, "servingclusters/chat/status")
}

fn pods() -> String {
    format!("POST {}", path("/api/v1", "pods"))
}

fn known_secret() -> Secret {
    let mut secret = known(&fleet());
    secret.metadata.uid = Some(SECRET_UID.to_owned());
    secret
}

fn gets_secret() -> Exchange {
    on(&format!("GET {}", secret_path()), Answer::Object(serde_json::to_value(known_secret()).unwrap()))
}

fn creates(name: &'static str, role: &'static str) -> Exchange {
    on(&pods(), Answer::Stored).checking(move |query, sent| {
        assert!(query.contains("fieldManager=shoal-operator"), "{query}");
        assert_eq!(sent["metadata"]["name"], name);
        assert_eq!(sent["metadata"]["labels"]["shoal.dev/role"], role);
    })
}

fn publishes(check: impl FnOnce(&Value) + Send + 'static) -> Exchange {
    let echo = serde_json::to_value(cluster()).unwrap();
    on(&format!("PATCH {}", status_path()), Answer::Object(echo)).checking(|query, sent| {
        assert!(
            query.contains("fieldManager=shoal-operator-status") && query.contains("force=true"),
            "{query}"
        );
        assert_eq!(sent["metadata"]["name"], "chat");
        check(&sent["status"]);
    })
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["conditions"].as_array().unwrap();
    conditions.iter().find(|found| found["type"] == kind).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn a_new_cluster_gets_secrets_furniture_and_instances_in_this_order_and_its_status_last() {
    let missing =
        |object: &str| on(&format!("GET {}", path("/api/v1", object)), Answer::Error(404, "NotFound"));
    let creates_secret = |name: &'static str| {
        on(&format!("POST {}", path("/api/v1", "secrets")), Answer::Stored).checking(move |_, sent| {
            assert_eq!(
                (&sent["metadata"]["name"], &sent["type"]),
                (&json!(name), &json!("kubernetes.io/tls"))
            );
        })
    };
    let mut script: Vec<Exchange> = ["prefill", "decode"].map(no_role).into();
    script.extend([
        missing("secrets/chat-fleet"),
        missing("secrets/chat-ca"),
        missing("secrets/chat-tls"),
        asks_cluster(&cluster()),
        on(&format!("POST {}", path("/api/v1", "secrets")), Answer::Stored).checking(|query, sent| {
            assert!(query.contains("fieldManager=shoal-operator"), "{query}");
            assert!(sent["data"]["secret"].is_string(), "{sent}");
        }),
        creates_secret("chat-tls"),
        creates_secret("chat-ca"),
    ]);
    for (group, object) in GROUPS {
        script.push(on(&format!("GET {}", path(group, object)), Answer::Error(404, "NotFound")));
        script.push(on(&format!("PATCH {}", path(group, object)), Answer::Stored).checking(|query, sent| {
            assert!(query.contains("force=true") && query.contains("fieldManager=shoal-operator"), "{query}");
            assert_eq!(sent["metadata"]["ownerReferences"][0]["controller"], true);
            assert!(sent["kind"].is_string() && sent["apiVersion"].is_string());
        }));
    }
    script.extend([
        creates("chat-0-1", "prefill"),
        creates("chat-1-1", "decode"),
        publishes(|status| {
            assert_eq!(condition(status, "Progressing")["status"], "True");
            assert_eq!(status["decode"]["summary"], "0/1");
        }),
    ]);
    let cache = Cache::of(Vec::new(), None);
    look_knowing(&cluster(), cache, Leadership::held(1), None, script).await.0.unwrap();
}

/// A pod as the API server would have it.
fn live(name: &str, role: Role, started: bool) -> Pod {
    let mut pod = pod(&fleet(), name, 1, role);
    pod.metadata.uid = Some(format!("uid-{name}"));
    pod.metadata.resource_version = Some("77".to_owned());
    pod.metadata.creation_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    pod.status = serde_json::from_value(json!({
        "phase": "Running", "podIP": "127.0.0.2",
        "containerStatuses": [{
            "name": "engine", "image": "shoal:1", "imageID": "", "ready": started, "started": started,
            "restartCount": 0, "state": { "running": { "startedAt": crate::clock::now().to_string() } },
        }],
    }))
    .unwrap();
    pod
}

fn both(started: bool) -> Vec<Pod> {
    vec![live("chat-0", Role::Prefill, started), live("chat-1", Role::Decode, started)]
}

#[tokio::test]
async fn a_second_look_writes_nothing() {
    let cache = || Cache::of(both(false), Some(&children(&fleet())));
    // The status of the first look is what the second one finds.
    let (sender, receiver) = std::sync::mpsc::channel();
    let keep = publishes(move |status| sender.send(status.clone()).unwrap());
    look(&cluster(), cache(), Leadership::held(1), vec![gets_secret(), keep]).await.0.unwrap();
    let mut seen = cluster();
    seen.status = serde_json::from_value(receiver.recv().unwrap()).unwrap();
    let (outcome, metrics) = look(&seen, cache(), Leadership::held(1), vec![gets_secret()]).await;
    outcome.unwrap();
    let page = metrics.render();
    let writes: Vec<&str> =
        page.lines().filter(|line| line.starts_with("shoal_operator_writes_total{")).collect();
    // The view of the second look has the ServingRoles as they were before their statuses were written.
    assert_eq!(
        writes,
        ["shoal_operator_writes_total{kind=\"ServingRole\",outcome=\"ok\",verb=\"apply_status\"} 2"]
    );
}

#[tokio::test]
async fn what_somebody_changed_is_put_right_on_that_very_object() {
    let mut changed = children(&fleet());
    changed.gateway_service.metadata.uid = Some("uid-service".to_owned());
    changed.gateway_service.spec.as_mut().unwrap().selector =
        Some([("app".to_owned(), "mine".to_owned())].into());
    let script = vec![
        gets_secret(),
        on(&format!("PATCH {}", path("/api/v1", "services/chat-gateway")), Answer::Stored).checking(
            |_, sent| {
                assert_eq!(sent["metadata"]["uid"], "uid-service");
                assert_eq!(sent["spec"]["selector"]["shoal.dev/component"], Value::Null);
                assert_eq!(sent["spec"]["selector"]["app.kubernetes.io/component"], "gateway");
            },
        ),
        publishes(|_| ()),
    ];
    look(&cluster(), Cache::of(both(false), Some(&changed)), Leadership::held(1), script).await.0.unwrap();
}

#[tokio::test]
async fn a_name_that_somebody_else_has_is_left_to_them_and_told() {
    let mut foreign = children(&fleet());
    foreign.gateway_service.metadata.owner_references = None;
    let script = vec![
        gets_secret(),
        publishes(|status| {
            let stalled = condition(status, "Stalled");
            assert_eq!((&stalled["status"], &stalled["reason"]), (&json!("True"), &json!("NameTaken")));
            assert!(stalled["message"].as_str().unwrap().contains("Service chat-gateway"), "{stalled}");
        }),
    ];
    let (outcome, _) =
        look(&cluster(), Cache::of(both(false), Some(&foreign)), Leadership::held(1), script).await;
    assert_eq!(outcome.unwrap_err().class(), Class::Transient);
}

/// A look that takes something away: what it begins with, then the rest.
fn taking_away<const N: usize>(rest: [Exchange; N]) -> Vec<Exchange> {
    [gets_secret()].into_iter().chain(confirms()).chain(rest).collect()
}

fn asks_cluster(found: &ServingCluster) -> Exchange {
    let found = serde_json::to_value(found).unwrap();
    on(&format!("GET {}", path(SHOAL, "servingclusters/chat")), Answer::Object(found))
}

fn asks_role(role: &str, found: &ServingRole) -> Exchange {
    let found = serde_json::to_value(found).unwrap();
    on(&format!("GET {}", path(SHOAL, &format!("servingroles/chat-{role}"))), Answer::Object(found))
}

fn no_role(role: &str) -> Exchange {
    let call = format!("GET {}", path(SHOAL, &format!("servingroles/chat-{role}")));
    on(&call, Answer::Error(404, "NotFound"))
}

/// Before something is taken away: spec and counts are still what they were.
fn confirms() -> [Exchange; 3] {
    let Children { prefill_role, decode_role, .. } = children(&fleet());
    [asks_cluster(&cluster()), asks_role("prefill", &prefill_role), asks_role("decode", &decode_role)]
}

#[tokio::test]
async fn a_process_whose_lease_has_run_out_writes_nothing() {
    let cache = Cache::of(Vec::new(), Some(&children(&fleet())));
    let script = vec![gets_secret(), asks_cluster(&cluster())];
    let (outcome, metrics) = look(&cluster(), cache, Leadership::expired(), script).await;
    assert!(outcome.is_err());
    assert!(metrics.render().contains("writes_total{kind=\"Pod\",outcome=\"not_leader\",verb=\"create\"} 2"));
}

#[tokio::test]
async fn a_cluster_that_is_gone_is_not_made_again_though_the_cache_has_it_still() {
    let not_found = || Answer::Error(404, "NotFound");
    let mut script: Vec<Exchange> = ["prefill", "decode"].map(no_role).into();
    script.extend([
        on(&format!("GET {}", secret_path()), not_found()),
        on(&format!("GET {}", path(SHOAL, "servingclusters/chat")), not_found()),
        on(&format!("PATCH {}", status_path()), not_found()),
    ]);
    let (outcome, metrics) = look(&cluster(), Cache::of(Vec::new(), None), Leadership::held(1), script).await;
    assert!(outcome.is_err());
    assert!(!metrics.render().contains("verb=\"create\""), "{}", metrics.render());
}

#[tokio::test]
async fn nothing_is_made_of_a_spec_that_is_out_of_date() {
    let mut newer = cluster();
    newer.metadata.generation = Some(2);
    // Each of the two creations asks, because neither got a yes.
    let script = vec![gets_secret(), asks_cluster(&newer), asks_cluster(&newer), publishes(|_| ())];
    let cache = Cache::of(Vec::new(), Some(&children(&fleet())));
    let (outcome, _) = look(&cluster(), cache, Leadership::held(1), script).await;
    assert_eq!(outcome.unwrap_err().class(), Class::Conflict);
}

#[tokio::test]
async fn a_spec_that_breaks_the_rules_is_refused_in_the_status_and_the_fleet_is_left_alone() {
    let mut broken = cluster();
    broken.spec.decode.replicas = 0;
    let script = vec![publishes(|status| {
        let stalled = condition(status, "Stalled");
        assert_eq!(stalled["reason"], "InvalidSpec");
        assert!(stalled["message"].as_str().unwrap().contains("spec.decode.replicas"), "{stalled}");
    })];
    let cache = Cache::of(both(false), Some(&children(&fleet())));
    let (outcome, _) = look(&broken, cache, Leadership::held(1), script).await;
    assert_eq!(outcome.unwrap_err().class(), Class::Invalid);
}

#[tokio::test]
async fn a_cluster_that_is_being_deleted_is_left_to_the_garbage_collector() {
    let mut leaving = cluster();
    leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let (outcome, _) = look(&leaving, Cache::of(both(false), None), Leadership::held(1), Vec::new()).await;
    assert_eq!(outcome.unwrap(), Action::await_change());
}
