//! Pods of instances: made, lost, refused.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use shoal_plan::Role;

use crate::cache::Cache;
use crate::children::tests::{children, cluster, fleet};
use crate::error::Class;
use crate::lease::Leadership;

use super::server::{Answer, on};
use super::{
    SHOAL, asks_cluster, both, condition, creates, gets_secret, live, look, path, pods, publishes,
    taking_away,
};

fn ended(mut pod: Pod) -> Pod {
    pod.status = serde_json::from_value(json!({
        "phase": "Failed", "reason": "Evicted",
        "conditions": [{ "type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:30:00Z" }],
    }))
    .unwrap();
    pod
}

#[tokio::test]
async fn an_instance_that_is_lost_gets_its_next_pod_with_its_crashes_before_the_old_one_goes() {
    let cache = |pods| Cache::of(pods, Some(&children(&fleet())));
    let lost = ended(live("chat-1", Role::Decode, true));
    let script = taking_away([
        asks_cluster(&cluster()),
        creates("chat-1-2", "decode").checking(|_, sent| {
            assert_eq!(sent["metadata"]["annotations"]["shoal.dev/crashes"], "1");
            assert_eq!(sent["metadata"]["labels"]["shoal.dev/instance"], "chat-1");
        }),
        publishes(|_| ()),
    ]);
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
        on(&format!("GET {}", path(SHOAL, "servingclusters/chat")), Answer::Object(newer)),
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
    let script = vec![gets_secret(), asks_cluster(&cluster()), taken(), found(&ours), publishes(|_| ())];
    look(&cluster(), cache(), Leadership::held(1), script).await.0.unwrap();

    let mut foreign = ours.clone();
    foreign.metadata.owner_references = None;
    let stalled = publishes(|status| assert_eq!(condition(status, "Stalled")["reason"], "NameTaken"));
    let script = vec![gets_secret(), asks_cluster(&cluster()), taken(), found(&foreign), stalled];
    assert!(look(&cluster(), cache(), Leadership::held(1), script).await.0.is_err());

    let mut bare = ours;
    bare.metadata.labels = None;
    let adopts =
        on(&format!("PATCH {}", path("/api/v1", "pods/chat-1-1")), Answer::Stored).checking(|_, sent| {
            assert_eq!(sent["metadata"]["uid"], "uid-chat-1");
            assert_eq!(sent["metadata"]["labels"]["app.kubernetes.io/managed-by"], "shoal-operator");
        });
    let script =
        vec![gets_secret(), asks_cluster(&cluster()), taken(), found(&bare), adopts, publishes(|_| ())];
    look(&cluster(), cache(), Leadership::held(1), script).await.0.unwrap();
}

#[tokio::test]
async fn a_refusal_is_named_by_what_refuses() {
    let psa =
        "pods \"chat-0-1\" is forbidden: violates PodSecurity \"restricted:latest\": restricted volume types";
    for (message, reason) in [
        (psa, "PodSecurityRefused"),
        ("pods \"chat-0-1\" is forbidden: exceeded quota: pods, requested: pods=1", "QuotaExceeded"),
        ("pods is forbidden: User \"x\" cannot create resource \"pods\"", "Refused"),
    ] {
        let script = vec![
            gets_secret(),
            asks_cluster(&cluster()),
            on(&pods(), Answer::Refusal(message)),
            creates("chat-1-1", "decode"),
            publishes(move |status| {
                assert_eq!(condition(status, "Stalled")["reason"], reason);
                assert_eq!(condition(status, "Stalled")["message"], message);
            }),
        ];
        let cache = Cache::of(Vec::new(), Some(&children(&fleet())));
        assert!(look(&cluster(), cache, Leadership::held(1), script).await.0.is_err());
    }
}

#[tokio::test]
async fn a_pod_template_that_cannot_be_read_is_refused_with_its_field_and_the_fleet_is_left_alone() {
    let mut broken = cluster();
    let template = json!({ "spec": { "affinity": { "nodeAffinty": {} } } });
    broken.spec.engine.pod_template = serde_json::from_value(template).unwrap();
    let script = vec![publishes(|status| {
        let stalled = condition(status, "Stalled");
        assert_eq!(stalled["reason"], "InvalidSpec");
        assert_eq!(
            stalled["message"],
            "spec.engine.podTemplate.spec.affinity.nodeAffinty: is not a field of Kubernetes' own type"
        );
    })];
    let cache = Cache::of(both(false), Some(&children(&fleet())));
    let (outcome, _) = look(&broken, cache, Leadership::held(1), script).await;
    assert_eq!(outcome.unwrap_err().class(), Class::Invalid);
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_told_in_its_own_words_and_does_not_stop_the_rest() {
    let script = vec![
        gets_secret(),
        asks_cluster(&cluster()),
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
