//! A scripted API server: exactly which calls one look makes, in which order, with which words in them.

mod engine;

use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Client, client::Body, core::Status, runtime::controller::Action};
use serde_json::{Value, json};
use shoal_crds::ServingCluster;
use shoal_plan::Role;
use shoal_wire::{FleetSecret, rpc};
use tokio::task::JoinHandle;
use tower_test::mock;

use crate::{
    cache::Cache,
    calls::Calls,
    children::{
        SECRET_KEY, known,
        tests::{SECRET_UID, children, cluster, fleet, pod, surroundings},
    },
    context::Context,
    error::Class,
    lease::Leadership,
    metrics::Metrics,
    reconcile::{ReconcileError, reconcile},
};

type Check = Box<dyn FnOnce(&str, &Value) + Send>;

/// What the API server is asked and answers.
struct Exchange {
    /// `METHOD path`, without the query.
    call: String,
    /// Looks at query and body.
    check: Check,
    answer: Answer,
}

enum Answer {
    /// The object that was sent, as stored.
    Stored,
    Object(Value),
    Error(u16, &'static str),
}

fn on(call: &str, answer: Answer) -> Exchange {
    Exchange { call: call.to_owned(), check: Box::new(|_, _| ()), answer }
}

impl Exchange {
    fn checking(mut self, check: impl FnOnce(&str, &Value) + Send + 'static) -> Self {
        self.check = Box::new(check);
        self
    }
}

/// Answers in this order and lets nothing else be asked. Events are left out: they have tests of their own.
fn server(script: Vec<Exchange>) -> (Client, JoinHandle<()>) {
    let (service, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
    let client = Client::new(service, "team");
    let mut script = VecDeque::from(script);
    let serving = tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let sent: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let path = parts.uri.path();
            if path.starts_with("/apis/events.k8s.io/") {
                send.send_response(Response::new(Body::from(bytes.to_vec())));
                continue;
            }
            let call = format!("{} {path}", parts.method);
            let Some(Exchange { call: expected, check, answer }) = script.pop_front() else {
                panic!("nothing more was expected: {call} {sent}");
            };
            assert_eq!(call, expected);
            check(parts.uri.query().unwrap_or_default(), &sent);
            let (code, reply) = match answer {
                Answer::Stored => (200, stored(sent)),
                Answer::Object(object) => (200, object),
                Answer::Error(code, reason) => {
                    let status = Status::failure(reason, reason).with_code(code);
                    (code, serde_json::to_value(status).unwrap())
                }
            };
            let mut response = Response::new(Body::from(reply.to_string().into_bytes()));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            send.send_response(response);
        }
        assert!(
            script.is_empty(),
            "never asked: {:?}",
            script.iter().map(|left| &left.call).collect::<Vec<_>>()
        );
    });
    (client, serving)
}

fn stored(mut object: Value) -> Value {
    let uid = object["metadata"]["uid"].as_str().unwrap_or(SECRET_UID).to_owned();
    object["metadata"]["uid"] = json!(uid);
    object["metadata"]["resourceVersion"] = json!("1");
    object
}

/// One look at `cluster` with `cache`, against a server that answers as the script says.
async fn look(
    cluster: &ServingCluster,
    cache: Cache,
    leadership: Leadership,
    script: Vec<Exchange>,
) -> (Result<Action, ReconcileError>, Arc<Metrics>) {
    let (client, serving) = server(script);
    let metrics = Arc::new(Metrics::new().unwrap());
    let context =
        Context::new(client.clone(), cache, surroundings(), leadership.clone(), Arc::clone(&metrics), "op-1");
    let calls = Calls::new(client, leadership, Arc::clone(&metrics));
    let outcome = Box::pin(reconcile(cluster, &context, &calls)).await;
    drop((context, calls));
    serving.await.unwrap();
    (outcome, metrics)
}

const GROUPS: [(&str, &str); 9] = [
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
    path("/apis/shoal.dev/v1alpha1", "servingclusters/chat/status")
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
async fn a_new_cluster_gets_secret_furniture_and_instances_in_this_order_and_its_status_last() {
    let mut script = vec![
        on(&format!("GET {}", secret_path()), Answer::Error(404, "NotFound")),
        on(&format!("POST {}", path("/api/v1", "secrets")), Answer::Stored).checking(|query, sent| {
            assert!(query.contains("fieldManager=shoal-operator"), "{query}");
            assert_eq!(sent["immutable"], true);
        }),
    ];
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
    let (outcome, _) = look(&cluster(), Cache::of(Vec::new(), None), Leadership::held(1), script).await;
    outcome.unwrap();
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
    assert!(!metrics.render().contains("writes_total{"), "{}", metrics.render());
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

fn ended(mut pod: Pod) -> Pod {
    pod.status = serde_json::from_value(json!({
        "phase": "Failed", "reason": "Evicted",
        "conditions": [{ "type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:30:00Z" }],
    }))
    .unwrap();
    pod
}

fn confirms() -> Exchange {
    let now = serde_json::to_value(cluster()).unwrap();
    on(&format!("GET {}", path("/apis/shoal.dev/v1alpha1", "servingclusters/chat")), Answer::Object(now))
}

#[tokio::test]
async fn an_instance_that_is_lost_gets_its_next_pod_with_its_crashes_before_the_old_one_goes() {
    let cache = |pods| Cache::of(pods, Some(&children(&fleet())));
    let lost = ended(live("chat-1", Role::Decode, true));
    let script = vec![
        gets_secret(),
        confirms(),
        creates("chat-1-2", "decode").checking(|_, sent| {
            assert_eq!(sent["metadata"]["annotations"]["shoal.dev/crashes"], "1");
            assert_eq!(sent["metadata"]["labels"]["shoal.dev/instance"], "chat-1");
        }),
        publishes(|_| ()),
    ];
    let first = cache(vec![live("chat-0", Role::Prefill, false), lost.clone()]);
    look(&cluster(), first, Leadership::held(1), script).await.0.unwrap();
    // The operator may have been killed in between: what is to be done follows from the two pods.
    let mut next = live("chat-1", Role::Decode, false);
    next.metadata.name = Some("chat-1-2".to_owned());
    let script = vec![
        gets_secret(),
        on(
            &format!("DELETE {}", path("/api/v1", "pods/chat-1-1")),
            Answer::Object(serde_json::to_value(&lost).unwrap()),
        )
        .checking(|_, sent| {
            assert_eq!(sent["preconditions"], json!({ "uid": "uid-chat-1", "resourceVersion": "77" }));
        }),
        publishes(|_| ()),
    ];
    let second = cache(vec![live("chat-0", Role::Prefill, false), lost, next]);
    look(&cluster(), second, Leadership::held(1), script).await.0.unwrap();
}

#[tokio::test]
async fn nothing_is_taken_away_on_a_spec_that_is_out_of_date() {
    let mut newer = cluster();
    newer.metadata.generation = Some(2);
    let newer = serde_json::to_value(newer).unwrap();
    let script = vec![
        gets_secret(),
        on(
            &format!("GET {}", path("/apis/shoal.dev/v1alpha1", "servingclusters/chat")),
            Answer::Object(newer),
        ),
        publishes(|status| assert_eq!(*condition(status, "Stalled"), Value::Null)),
    ];
    let pods = vec![live("chat-0", Role::Prefill, false), ended(live("chat-1", Role::Decode, true))];
    let cache = Cache::of(pods, Some(&children(&fleet())));
    let (outcome, _) = look(&cluster(), cache, Leadership::held(1), script).await;
    assert_eq!(outcome.unwrap_err().class(), Class::Conflict);
}

#[tokio::test]
async fn a_pod_that_an_earlier_try_made_is_no_error_and_a_foreign_one_of_its_name_is() {
    let cache = || Cache::of(vec![live("chat-0", Role::Prefill, false)], Some(&children(&fleet())));
    let taken = || on(&pods(), Answer::Error(409, "AlreadyExists"));
    let found = |pod: &Pod| {
        on(
            &format!("GET {}", path("/api/v1", "pods/chat-1-1")),
            Answer::Object(serde_json::to_value(pod).unwrap()),
        )
    };
    let ours = live("chat-1", Role::Decode, false);
    let script = vec![gets_secret(), taken(), found(&ours), publishes(|_| ())];
    look(&cluster(), cache(), Leadership::held(1), script).await.0.unwrap();

    let mut foreign = ours.clone();
    foreign.metadata.owner_references = None;
    let stalled = publishes(|status| assert_eq!(condition(status, "Stalled")["reason"], "NameTaken"));
    let script = vec![gets_secret(), taken(), found(&foreign), stalled];
    assert!(look(&cluster(), cache(), Leadership::held(1), script).await.0.is_err());

    let mut bare = ours;
    bare.metadata.labels = None;
    let adopts =
        on(&format!("PATCH {}", path("/api/v1", "pods/chat-1-1")), Answer::Stored).checking(|_, sent| {
            assert_eq!(sent["metadata"]["uid"], "uid-chat-1");
            assert_eq!(sent["metadata"]["labels"]["app.kubernetes.io/managed-by"], "shoal-operator");
        });
    let script = vec![gets_secret(), taken(), found(&bare), adopts, publishes(|_| ())];
    look(&cluster(), cache(), Leadership::held(1), script).await.0.unwrap();
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_told_in_its_own_words_and_does_not_stop_the_rest() {
    let script = vec![
        gets_secret(),
        on(&pods(), Answer::Error(403, "Forbidden")),
        creates("chat-1-1", "decode"),
        publishes(|status| {
            assert_eq!(condition(status, "Stalled")["reason"], "Refused");
            assert_eq!(condition(status, "Stalled")["message"], "Forbidden");
        }),
    ];
    let cache = Cache::of(Vec::new(), Some(&children(&fleet())));
    let (outcome, _) = look(&cluster(), cache, Leadership::held(1), script).await;
    assert_eq!(outcome.unwrap_err().class(), Class::Transient);
}

#[tokio::test]
async fn a_process_whose_lease_has_run_out_writes_nothing() {
    let cache = Cache::of(Vec::new(), Some(&children(&fleet())));
    let (outcome, metrics) = look(&cluster(), cache, Leadership::expired(), vec![gets_secret()]).await;
    assert!(outcome.is_err());
    assert!(metrics.render().contains("writes_total{kind=\"Pod\",outcome=\"not_leader\",verb=\"create\"} 2"));
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

/// The cluster's engines, at loopback addresses of this test alone, as its pods say.
async fn engines(net: u8, pods: &mut [Pod]) -> Vec<engine::Running> {
    let secret = FleetSecret::parse(&known_secret().data.unwrap()[SECRET_KEY].0).unwrap();
    let mut running = Vec::new();
    for (number, pod) in pods.iter_mut().enumerate() {
        let address = SocketAddr::from(([127, 7, net, number as u8 + 1], 7070));
        pod.status.as_mut().unwrap().pod_ip = Some(address.ip().to_string());
        let name = pod.metadata.name.clone().unwrap();
        running.push(engine::start(&name, address, secret.clone()).await);
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
    let script = vec![gets_secret(), confirms(), marks, publishes(|_| ())];
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
    let script = vec![gets_secret(), confirms(), deletes, publishes(|_| ())];
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
