//! A fleet secret that somebody deletes.

use serde_json::json;

use crate::cache::Cache;
use crate::children::tests::{SECRET_UID, UID, children, cluster, fleet};
use crate::context::Context;
use crate::lease::Leadership;
use crate::observe::{SeenCertificates, read_secret};

use super::server::{Answer, on};
use super::{
    Exchange, asks_cluster, both, known_certificates, known_secret, look_after, path, publishes, secret_path,
};

/// Has looked at the fleet before.
fn knows(context: &Context) {
    let [authority, leaf] = known_certificates();
    let seen = SeenCertificates::of(&fleet(), Some(authority), Some(leaf), crate::clock::now());
    context.identities.remember(UID, seen);
    context.secrets.remember(UID, read_secret(&fleet(), "chat-fleet", &known_secret()).unwrap());
}

fn is_gone() -> Exchange {
    on(&format!("GET {}", secret_path()), Answer::Error(404, "NotFound"))
}

fn creates() -> Exchange {
    on(&format!("POST {}", path("/api/v1", "secrets")), Answer::Stored)
}

#[tokio::test]
async fn a_deleted_fleet_secret_that_pods_use_is_put_back_with_its_value_and_nothing_rolls_for_it() {
    let same = creates().checking(|_, sent| {
        let known = serde_json::to_value(known_secret()).unwrap();
        assert_eq!(sent["data"], known["data"]);
        assert_eq!(sent["metadata"]["annotations"]["shoal.dev/fleet-secret"], SECRET_UID);
    });
    // Nothing is applied: the gateway's template is what it was.
    let script = vec![is_gone(), asks_cluster(&cluster()), same, publishes(|_| ())];
    let cache = Cache::of(both(false), Some(&children(&fleet())));
    look_after(&cluster(), cache, Leadership::held(1), knows, script).await.0.unwrap();
}

#[test]
fn a_secret_that_was_put_back_counts_as_the_first_one() {
    let seen = read_secret(&fleet(), "chat-fleet", &known_secret()).unwrap();
    let mut again = crate::children::fleet_secret_again(&fleet(), &seen);
    again.metadata.uid = Some("another".to_owned());
    let found = read_secret(&fleet(), "chat-fleet", &again).unwrap();
    assert_eq!((found.id, found.content), (seen.id.clone(), seen.content.clone()));
    assert!(!format!("{seen:?}").contains("content"), "a value may not be shown");
}

#[tokio::test]
async fn without_pods_a_deleted_fleet_secret_gets_a_new_value() {
    let another = creates().checking(|_, sent| {
        let known = serde_json::to_value(known_secret()).unwrap();
        assert_ne!(sent["data"], known["data"]);
        assert_eq!(sent["metadata"]["annotations"], json!(null));
    });
    let script = vec![
        is_gone(),
        asks_cluster(&cluster()),
        another,
        super::creates("chat-0-1", "prefill"),
        super::creates("chat-1-1", "decode"),
        publishes(|_| ()),
    ];
    let cache = Cache::of(Vec::new(), Some(&children(&fleet())));
    look_after(&cluster(), cache, Leadership::held(1), knows, script).await.0.unwrap();
}
