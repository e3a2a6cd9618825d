//! Events of a cluster and of what it is made of, also of pods that are gone.

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use kube::{Api, api::ListParams};

use super::{Unseen, pages};
use crate::view::event_time;

/// Events of a cluster, oldest first.
pub(crate) async fn events(
    api: &Api<Event>,
    namespace: &str,
    cluster: &str,
    unseen: &mut Unseen,
) -> Vec<Event> {
    let place = format!(" in namespace {namespace}");
    let mut found = unseen.look("list", "events", &place, pages(api, ListParams::default())).await;
    found.retain(|event| concerns(&event.involved_object, cluster));
    found.sort_by_key(event_time);
    found
}

/// Names tell: those of pods end in two numbers, all others in a word that no other cluster's can end in.
pub(crate) fn concerns(object: &ObjectReference, cluster: &str) -> bool {
    let Some(name) = object.name.as_deref() else { return false };
    if object.kind.as_deref() == Some("ServingCluster") {
        return name == cluster;
    }
    let Some(rest) = name.strip_prefix(cluster).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_word =
        |word: &str| rest == word || (rest.starts_with(word) && rest[word.len()..].starts_with('-'));
    is_word("gateway")
        || ["instances", "fleet", "prefill", "decode"].contains(&rest)
        || rest.split_once('-').is_some_and(|(instance, attempt)| number(instance) && number(attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_belongs_to_the_cluster_whose_object_it_names_and_to_no_neighbour() {
        for (kind, name, expected) in [
            ("ServingCluster", "chat", true),
            ("ServingCluster", "chat-0", false),
            ("Pod", "chat-0-1", true),
            ("Pod", "chat-12-3", true),
            ("Pod", "chat-0-0-1", false),
            ("Pod", "chat-b-0-1", false),
            ("Pod", "chat-gateway-5d9f-x2x", true),
            ("ReplicaSet", "chat-gateway-5d9f", true),
            ("Deployment", "chat-gateway", true),
            ("NetworkPolicy", "chat-instances", true),
            ("ServingRole", "chat-decode", true),
            ("Pod", "chat-gateways-1", false),
            ("Pod", "other-0-1", false),
        ] {
            let object = ObjectReference {
                kind: Some(kind.to_owned()),
                name: Some(name.to_owned()),
                ..ObjectReference::default()
            };
            assert_eq!(concerns(&object, "chat"), expected, "{kind}/{name}");
        }
    }
}
