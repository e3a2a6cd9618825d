//! What somebody changes by hand is set right again; what is theirs stays.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use shoal_e2e::kubernetes::{Namespace, in_namespace, small};

const REPAIR: Duration = Duration::from_mins(1);

/// A child, a merge patch that does harm, and where the harm shows.
const EDITS: &[(&str, &str, &str)] = &[
    ("deployment/chat-gateway", r#"{"spec": {"replicas": 5}}"#, "/spec/replicas"),
    (
        "deployment/chat-gateway",
        r#"{"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 2}}}}"#,
        "/spec/strategy/rollingUpdate/maxUnavailable",
    ),
    ("service/chat-gateway", r#"{"spec": {"selector": {"app": "other"}}}"#, "/spec/selector"),
    ("service/chat-instances", r#"{"spec": {"selector": {"shoal.dev/cluster": "x"}}}"#, "/spec/selector"),
    (
        "serviceaccount/chat-gateway",
        r#"{"automountServiceAccountToken": true}"#,
        "/automountServiceAccountToken",
    ),
    (
        "role/chat-gateway",
        r#"{"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]}"#,
        "/rules",
    ),
    ("rolebinding/chat-gateway", r#"{"subjects": []}"#, "/subjects"),
    ("networkpolicy/chat-instances", r#"{"spec": {"ingress": [{}]}}"#, "/spec/ingress"),
    ("networkpolicy/chat-gateway", r#"{"spec": {"ingress": []}}"#, "/spec/ingress"),
    ("poddisruptionbudget/chat-gateway", r#"{"spec": {"maxUnavailable": 2}}"#, "/spec/maxUnavailable"),
    // By this label the operator's watches find it.
    (
        "service/chat-gateway",
        r#"{"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}}"#,
        "/metadata/labels/app.kubernetes.io~1managed-by",
    ),
];

const CHILDREN: &[&str] = &[
    "deployment/chat-gateway",
    "service/chat-gateway",
    "service/chat-instances",
    "serviceaccount/chat-gateway",
    "role/chat-gateway",
    "rolebinding/chat-gateway",
    "networkpolicy/chat-instances",
    "networkpolicy/chat-gateway",
    "poddisruptionbudget/chat-gateway",
];

#[tokio::test]
async fn drift_a_child_edited_by_hand_is_repaired_and_foreign_marks_stay() -> Result<()> {
    in_namespace("drift-edit", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        for child in CHILDREN {
            namespace.kubectl(&["label", child, "cost-centre=seaside"]).await?;
            namespace.kubectl(&["annotate", child, "example.com/note=mine"]).await?;
        }
        for (child, patch, place) in EDITS {
            let wanted = at(namespace, child, place).await?;
            namespace.kubectl(&["patch", child, "--type=merge", "--patch", patch]).await?;
            let repaired = async || {
                let found = at(namespace, child, place).await?;
                ensure!(found == wanted, "{place}: {found}");
                Ok(())
            };
            namespace.until(&format!("{child} is repaired after {patch}"), REPAIR, repaired).await?;
        }
        for child in CHILDREN {
            assert_eq!(at(namespace, child, "/metadata/labels/cost-centre").await?, "seaside", "{child}");
            assert_eq!(
                at(namespace, child, "/metadata/annotations/example.com~1note").await?,
                "mine",
                "{child}"
            );
        }
        chat.settled().await?;
        chat.ask("The capital of France is", 4).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn drift_a_deleted_child_is_made_again() -> Result<()> {
    in_namespace("drift-delete", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        for child in CHILDREN {
            let before = at(namespace, child, "/metadata/uid").await?;
            namespace.kubectl(&["delete", child, "--wait=false"]).await?;
            let again = async || {
                let uid = at(namespace, child, "/metadata/uid").await?;
                ensure!(uid != before, "it is still the old one");
                Ok(())
            };
            namespace.until(&format!("{child} is made again"), REPAIR, again).await?;
        }
        chat.settled().await?;
        chat.ask("The capital of France is", 4).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn drift_a_deleted_fleet_secret_is_put_back_with_the_value_that_pods_use() -> Result<()> {
    in_namespace("drift-fleet-secret", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let (before, value) = (chat.uids().await?, at(namespace, "secret/chat-fleet", "/data").await?);
        namespace.kubectl(&["delete", "secret", "chat-fleet"]).await?;
        // A pod that waits for the Secret makes the operator look.
        chat.patch(&json!({"spec": {"decode": {"replicas": 2}}})).await?;
        chat.settled().await?;
        assert_eq!(at(namespace, "secret/chat-fleet", "/data").await?, value);
        // Both answer the operator and the gateways, and nothing was made anew for it.
        chat.ask("The capital of France is", 4).await?;
        let after = chat.uids().await?;
        assert_eq!(after.len(), before.len() + 1);
        ensure!(before.iter().all(|(name, uid)| after.get(name) == Some(uid)), "{before:?} {after:?}");
        let events = namespace.kubectl(&["get", "events", "--output=jsonpath={.items[*].reason}"]).await?;
        ensure!(events.contains("RestoreSecret"), "{events}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn drift_a_pod_gets_its_label_back_and_is_not_replaced_for_it() -> Result<()> {
    in_namespace("drift-label", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 1)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        let pod = chat.instance_of("prefill").await?.metadata.name.unwrap_or_default();
        namespace.kubectl(&["label", "pod", &pod, "app.kubernetes.io/component-", "team=tide"]).await?;
        let back = async || {
            let found = chat.instances().await?;
            ensure!(found.contains_key(&pod), "{pod} has not got its label back: {:?}", found.keys());
            Ok(())
        };
        namespace.until("the label is back", REPAIR, back).await?;
        assert_eq!(at(namespace, &format!("pod/{pod}"), "/metadata/labels/team").await?, "tide");
        chat.settled().await?;
        assert_eq!(chat.uids().await?, before, "no pod was replaced for a label");
        Ok(())
    })
    .await
}

/// What an object has at a place, null if there is nothing.
pub(crate) async fn at(namespace: &Namespace, object: &str, place: &str) -> Result<Value> {
    let text = namespace.kubectl(&["get", object, "--output=json"]).await?;
    let found: Value = serde_json::from_str(&text)?;
    Ok(found.pointer(place).cloned().unwrap_or(Value::Null))
}
