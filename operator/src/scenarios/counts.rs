//! Counts of the two roles: scaled, edited, both, too many.

use serde_json::{Value, json};
use shoal_crds::{MAX_REPLICAS, ServingCluster};
use shoal_plan::Role;

use crate::cache::Cache;
use crate::children::tests::{children, cluster, fleet};
use crate::children::{Children, Prepared};
use crate::error::Class;
use crate::lease::Leadership;

use super::server::{Answer, Exchange, on};
use super::{
    SHOAL, asks_cluster, asks_role, both, condition, creates, gets_secret, live, look, no_role, path,
    publishes,
};

/// Furniture of which the decode role was scaled, as it is at the API server.
fn scaled(decode: i32) -> Children<Prepared> {
    let mut all = children(&fleet());
    all.decode_role.spec.replicas = decode;
    all.decode_role.metadata.uid = Some("uid-role".to_owned());
    all.decode_role.metadata.resource_version = Some("5".to_owned());
    all
}

/// The cluster whose own decode count was edited.
fn edited(decode: i32) -> ServingCluster {
    let mut edited = cluster();
    edited.spec.decode.replicas = decode;
    edited.metadata.generation = Some(2);
    edited
}

fn writes_role(answer: Answer) -> Exchange {
    on(&format!("PATCH {}", path(SHOAL, "servingroles/chat-decode")), answer)
}

fn follows(replicas: i32) -> Exchange {
    writes_role(Answer::Stored).checking(move |query, sent| {
        assert!(query.contains("fieldManager=shoal-operator") && query.contains("force=true"), "{query}");
        assert_eq!(sent["spec"], json!({ "role": "decode", "replicas": replicas }));
        assert_eq!(
            sent["metadata"]["annotations"]["shoal.dev/followed-replicas"],
            replicas.to_string().as_str()
        );
        assert_eq!(
            (&sent["metadata"]["uid"], &sent["metadata"]["resourceVersion"]),
            (&json!("uid-role"), &json!("5"))
        );
    })
}

#[tokio::test]
async fn a_role_that_was_scaled_is_followed_and_nothing_is_written_over_it() {
    let script = vec![
        gets_secret(),
        asks_cluster(&cluster()),
        creates("chat-2-1", "decode"),
        creates("chat-3-1", "decode"),
        publishes(|status| {
            assert_eq!(
                (&status["decode"]["summary"], &status["prefill"]["summary"]),
                (&json!("0/3"), &json!("0/1"))
            );
        }),
    ];
    let cache = Cache::of(both(false), Some(&scaled(3)));
    look(&cluster(), cache, Leadership::held(1), script).await.0.unwrap();
}

#[tokio::test]
async fn an_edit_of_the_cluster_wins_over_an_earlier_scaling_on_the_role_as_it_was_seen() {
    let script = vec![
        gets_secret(),
        asks_cluster(&edited(2)),
        follows(2),
        creates("chat-2-1", "decode"),
        publishes(|status| assert_eq!(status["decode"]["summary"], "0/2")),
    ];
    let cache = Cache::of(both(false), Some(&scaled(5)));
    look(&edited(2), cache, Leadership::held(1), script).await.0.unwrap();
}

#[tokio::test]
async fn a_scaling_that_was_not_seen_is_not_overwritten_and_nothing_else_is_done() {
    let conflict = writes_role(Answer::Error(409, "Conflict"));
    let script = vec![
        gets_secret(),
        asks_cluster(&edited(2)),
        conflict,
        publishes(|status| {
            assert_eq!(*condition(status, "Stalled"), Value::Null);
        }),
    ];
    let cache = Cache::of(both(false), Some(&scaled(5)));
    let (outcome, _) = look(&edited(2), cache, Leadership::held(1), script).await;
    assert_eq!(outcome.unwrap_err().class(), Class::Conflict);
}

#[tokio::test]
async fn nothing_is_taken_away_on_a_count_that_is_out_of_date() {
    // The cache has not seen yet that the role was scaled from one to two.
    let pods = vec![
        live("chat-0", Role::Prefill, false),
        live("chat-1", Role::Decode, false),
        live("chat-2", Role::Decode, false),
    ];
    let Children { prefill_role, .. } = children(&fleet());
    let script = vec![
        gets_secret(),
        asks_cluster(&cluster()),
        asks_role("prefill", &prefill_role),
        asks_role("decode", &scaled(2).decode_role),
        publishes(|_| ()),
    ];
    let cache = Cache::of(pods, Some(&children(&fleet())));
    let (outcome, _) = look(&cluster(), cache, Leadership::held(1), script).await;
    assert_eq!(outcome.unwrap_err().class(), Class::Conflict);
}

#[tokio::test]
async fn a_deleted_role_comes_back_with_the_count_of_its_cluster() {
    let cache = Cache::of(both(false), Some(&scaled(1)));
    let cache = cache.without_role(Role::Decode);
    let returns = writes_role(Answer::Stored).checking(|_, sent| {
        assert_eq!(sent["spec"]["replicas"], 1);
        assert_eq!(sent["metadata"]["annotations"]["shoal.dev/followed-replicas"], "1");
        assert_eq!(sent["metadata"]["ownerReferences"][0]["kind"], "ServingCluster");
    });
    let script = vec![
        no_role("decode"),
        gets_secret(),
        no_role("decode"),
        asks_cluster(&cluster()),
        returns,
        publishes(|_| ()),
    ];
    look(&cluster(), cache, Leadership::held(1), script).await.0.unwrap();
}

#[tokio::test]
async fn a_role_that_only_the_cache_lacks_keeps_its_count() {
    let cache = Cache::of(both(false), Some(&scaled(1))).without_role(Role::Decode);
    let found = asks_role("decode", &scaled(2).decode_role);
    let script = vec![
        found,
        gets_secret(),
        asks_cluster(&cluster()),
        creates("chat-2-1", "decode"),
        publishes(|_| ()),
    ];
    look(&cluster(), cache, Leadership::held(1), script).await.0.unwrap();
}

#[tokio::test]
async fn too_many_of_both_roles_together_are_refused_in_words_and_what_was_planned_stays() {
    let mut seen = cluster();
    seen.status =
        serde_json::from_value(json!({ "decode": { "desired": 1 }, "prefill": { "desired": 1 } })).ok();
    let told = |status: &Value| {
        for kind in ["Ready", "Stalled"] {
            let found = condition(status, kind);
            assert_eq!(found["reason"], "TooManyReplicas", "{status}");
            assert!(found["message"].as_str().unwrap().contains("so it stays at 1 and 1"), "{found}");
        }
    };
    let script = vec![
        gets_secret(),
        publishes(|status| {
            assert_eq!(condition(status, "Stalled")["reason"], "TooManyReplicas");
            assert_eq!(status["decode"]["summary"], "0/1");
        }),
        on(&format!("PATCH {}", path(SHOAL, "servingroles/chat-prefill/status")), Answer::Stored),
        on(&format!("PATCH {}", path(SHOAL, "servingroles/chat-decode/status")), Answer::Stored)
            .checking(move |_, sent| told(&sent["status"])),
    ];
    let cache = Cache::of(both(false), Some(&scaled(MAX_REPLICAS)));
    let (_, metrics) = look(&seen, cache, Leadership::held(1), script).await;
    assert!(!metrics.render().contains("kind=\"Pod\""), "{}", metrics.render());
}

#[tokio::test]
async fn a_role_says_how_many_there_are_and_which_pods_they_are() {
    let script = vec![
        gets_secret(),
        publishes(|_| ()),
        on(&format!("PATCH {}", path(SHOAL, "servingroles/chat-prefill/status")), Answer::Stored),
        on(&format!("PATCH {}", path(SHOAL, "servingroles/chat-decode/status")), Answer::Stored).checking(
            |query, sent| {
                assert!(query.contains("fieldManager=shoal-operator-status"), "{query}");
                let status = &sent["status"];
                assert_eq!((&status["replicas"], &status["readyReplicas"]), (&json!(1), &json!(0)));
                let selector =
                    "shoal.dev/cluster=chat,app.kubernetes.io/component=instance,shoal.dev/role=decode";
                assert_eq!(status["selector"], selector);
                let ready = condition(status, "Ready");
                assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("Scaling")));
                assert_eq!(ready["message"], "0 of 1 instances are ready");
            },
        ),
    ];
    let cache = Cache::of(both(false), Some(&children(&fleet())));
    look(&cluster(), cache, Leadership::held(1), script).await.0.unwrap();
}

#[tokio::test]
async fn a_role_of_that_name_that_is_somebody_elses_counts_for_nothing() {
    let mut foreign = scaled(7);
    foreign.decode_role.metadata.owner_references = None;
    let script = vec![
        gets_secret(),
        publishes(|status| {
            assert_eq!(condition(status, "Stalled")["reason"], "NameTaken");
            assert_eq!(status["decode"]["summary"], "0/1");
        }),
    ];
    let cache = Cache::of(both(false), Some(&foreign));
    assert!(look(&cluster(), cache, Leadership::held(1), script).await.0.is_err());
}
