//! How many calls one look may make, whatever the size of the cluster: numbers, so that a regression fails here.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use serde_json::json;
use shoal_crds::ServingCluster;
use shoal_plan::Role;

use crate::cache::Cache;
use crate::children::tests::{children, cluster, surroundings};
use crate::children::{Children, Prepared};
use crate::labels;
use crate::lease::Leadership;
use crate::validate::validate;

use super::server::{Answer, on};
use super::{
    GROUPS, SHOAL, asks_cluster, asks_role, condition, counted, gets_secret, live, no_role, path, pods,
    publishes, secret_path,
};

/// Steps of one look.
const STEPS: u32 = 256;
/// Secret, furniture, check of the spec, status and events of one look: what no number of instances changes.
const REST: u32 = 32;

fn sized(prefill: i32, decode: i32) -> ServingCluster {
    let mut cluster = cluster();
    (cluster.spec.prefill.replicas, cluster.spec.decode.replicas) = (prefill, decode);
    cluster
}

fn furniture(cluster: &ServingCluster) -> Children<Prepared> {
    children(&validate(cluster, &surroundings()).unwrap())
}

/// Half of them prefill, none of them started yet.
fn instances(count: usize) -> Vec<Pod> {
    let alike = [Role::Prefill, Role::Decode].map(|role| live("chat-0", role, false));
    let named = |number: usize| {
        let mut pod = alike[number % 2].clone();
        let name = format!("chat-{number}");
        pod.metadata.name = Some(format!("{name}-1"));
        pod.metadata.uid = Some(format!("uid-{name}"));
        pod.metadata.labels.as_mut().unwrap().insert(labels::INSTANCE.to_owned(), name);
        pod
    };
    (0..count).map(named).collect()
}

fn goes_on_at_once(outcome: &Action) -> bool {
    *outcome == Action::requeue(Duration::from_millis(1))
}

#[tokio::test]
async fn a_new_cluster_of_a_thousand_instances_is_made_by_looks_of_bounded_calls() {
    let mut script = vec![
        no_role("prefill"),
        no_role("decode"),
        on(&format!("GET {}", secret_path()), Answer::Error(404, "NotFound")),
        asks_cluster(&sized(500, 500)),
        on(&format!("POST {}", path("/api/v1", "secrets")), Answer::Stored),
    ];
    for (group, object) in GROUPS {
        script.push(on(&format!("GET {}", path(group, object)), Answer::Error(404, "NotFound")));
        script.push(on(&format!("PATCH {}", path(group, object)), Answer::Stored));
    }
    // One step is the gateway, which came with the furniture.
    script.extend((1..STEPS).map(|_| on(&pods(), Answer::Stored)));
    script.push(publishes(|status| assert_eq!(status["decode"]["summary"], "0/500")));
    let cache = Cache::of(Vec::new(), None);
    let (outcome, _, calls) = counted(&sized(500, 500), cache, Leadership::held(1), script).await;
    assert!(goes_on_at_once(&outcome.unwrap()));
    assert!(calls <= STEPS + REST, "{calls} calls");
}

#[tokio::test]
async fn the_rest_is_made_on_what_is_seen_then_and_no_instance_twice() {
    let mut script = vec![gets_secret(), asks_cluster(&sized(500, 500))];
    script.extend((0..1000 - 900).map(|_| {
        on(&pods(), Answer::Stored).checking(|_, sent| {
            let name = sent["metadata"]["name"].as_str().unwrap();
            let number: u32 = name.trim_start_matches("chat-").trim_end_matches("-1").parse().unwrap();
            assert!((900..1000).contains(&number), "{name}");
        })
    }));
    script.push(publishes(|_| ()));
    let cache = Cache::of(instances(900), Some(&furniture(&sized(500, 500))));
    let (outcome, _, calls) = counted(&sized(500, 500), cache, Leadership::held(1), script).await;
    assert!(!goes_on_at_once(&outcome.unwrap()));
    assert!(calls <= 100 + REST, "{calls} calls");
}

#[tokio::test]
async fn a_thousand_instances_too_many_are_taken_away_by_looks_of_bounded_calls() {
    let gone = serde_json::to_value(live("chat-0", Role::Decode, false)).unwrap();
    let small = sized(0, 1);
    let all = furniture(&small);
    let mut script = vec![
        gets_secret(),
        asks_cluster(&small),
        asks_role("prefill", &all.prefill_role),
        asks_role("decode", &all.decode_role),
    ];
    let deletes = || on(&format!("DELETE {}", path("/api/v1", "pods/")), Answer::Object(gone.clone()));
    script.extend((0..STEPS).map(|_| deletes()));
    script.push(publishes(|_| ()));
    let (outcome, _, calls) =
        counted(&small, Cache::of(instances(1000), Some(&all)), Leadership::held(1), script).await;
    assert!(goes_on_at_once(&outcome.unwrap()));
    assert!(calls <= STEPS + REST, "{calls} calls");
}

#[tokio::test]
async fn a_look_at_a_thousand_instances_with_nothing_to_do_reads_one_secret() {
    let mut cluster = sized(500, 500);
    let mut all = furniture(&cluster);
    // What the first look writes is what the second one finds.
    let (sender, receiver) = std::sync::mpsc::channel();
    let keep = |object: &str| {
        let sender = sender.clone();
        let call = format!("PATCH {}", path(SHOAL, object));
        on(&call, Answer::Stored).checking(move |_, sent| sender.send(sent["status"].clone()).unwrap())
    };
    let script = vec![
        gets_secret(),
        publishes({
            let sender = sender.clone();
            move |status| sender.send(status.clone()).unwrap()
        }),
        keep("servingroles/chat-prefill/status"),
        keep("servingroles/chat-decode/status"),
    ];
    let cache = |all: &Children<Prepared>| Cache::of(instances(1000), Some(all));
    counted(&cluster, cache(&all), Leadership::held(1), script).await.0.unwrap();
    cluster.status = serde_json::from_value(receiver.recv().unwrap()).unwrap();
    all.prefill_role.status = serde_json::from_value(receiver.recv().unwrap()).unwrap();
    all.decode_role.status = serde_json::from_value(receiver.recv().unwrap()).unwrap();
    let (outcome, _, calls) = counted(&cluster, cache(&all), Leadership::held(1), vec![gets_secret()]).await;
    outcome.unwrap();
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn labels_that_somebody_took_from_a_thousand_pods_are_given_back_by_looks_of_bounded_calls() {
    let mut bare = instances(1000);
    for pod in &mut bare {
        pod.metadata.labels.as_mut().unwrap().remove(labels::INSTANCE);
    }
    let mut script = vec![gets_secret()];
    let marks =
        || on(&format!("PATCH {}", path("/api/v1", "pods/")), Answer::Object(json!({ "metadata": {} })));
    script.extend((0..STEPS).map(|_| marks()));
    script.push(publishes(|status| assert_eq!(condition(status, "Degraded")["status"], "False")));
    let cache = Cache::of(bare, Some(&furniture(&sized(500, 500))));
    let (outcome, _, calls) = counted(&sized(500, 500), cache, Leadership::held(1), script).await;
    outcome.unwrap();
    assert!(calls <= STEPS + REST, "{calls} calls");
}
