//! The number of instances of each role: by kubectl, by an autoscaler, by an edit of the manifest.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::json;
use shoal_crds::ServingRole;
use shoal_e2e::kubernetes::{Namespace, Serving, in_namespace, small};

const SOON: Duration = Duration::from_mins(1);

/// Waits until the role asks for that many, and the cluster plans for them.
async fn asks_for(chat: &Serving, role: &str, replicas: i32) -> Result<ServingRole> {
    let roles = chat.namespace.api::<ServingRole>();
    let name = format!("{}-{role}", chat.name);
    let what = format!("{name} and its cluster ask for {replicas}");
    chat.namespace
        .until(&what, SOON, async || {
            let found = roles.get(&name).await?;
            let status = chat.get().await?.status.context("no status yet")?;
            let planned = if role == "prefill" { status.prefill.desired } else { status.decode.desired };
            ensure!(found.spec.replicas == replicas && planned == replicas, "{found:?} {planned}");
            Ok(found)
        })
        .await
}

async fn scale(namespace: &Namespace, role: &str, replicas: u32) -> Result<String> {
    namespace.kubectl(&["scale", "servingrole", role, &format!("--replicas={replicas}")]).await
}

#[tokio::test]
async fn scale_by_kubectl_stays_until_the_manifest_itself_is_edited() -> Result<()> {
    in_namespace("scale-kubectl", async |namespace| {
        let manifest = small("chat", 1, 1);
        let chat = namespace.apply(&manifest).await?;
        chat.settled().await?;
        scale(namespace, "chat-decode", 2).await?;
        asks_for(&chat, "decode", 2).await?;
        chat.settled().await?;
        // The same manifest again: no difference to show, and none made.
        namespace.kubectl_with(&manifest.to_string(), &["diff", "--filename", "-"]).await?;
        namespace.apply(&manifest).await?;
        // An edit of one role's count is followed, and the other's scaling stays.
        chat.patch(&json!({"spec": {"prefill": {"replicas": 0}}})).await?;
        asks_for(&chat, "prefill", 0).await?;
        let scaled = asks_for(&chat, "decode", 2).await?;
        // A role that is deleted comes back as the manifest has it.
        namespace.kubectl(&["delete", "servingrole", "chat-decode"]).await?;
        let again = asks_for(&chat, "decode", 1).await?;
        ensure!(again.metadata.uid != scaled.metadata.uid, "it was never deleted");
        chat.settled().await?;
        let waited = ["wait", "servingrole/chat-decode", "--for=condition=Ready", "--timeout=30s"];
        namespace.kubectl(&waited).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn scale_below_what_serves_is_refused_in_words() -> Result<()> {
    in_namespace("scale-refused", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        asks_for(&chat, "decode", 1).await?;
        let refusal = scale(namespace, "chat-decode", 0).await.err().context("scaled to nothing")?;
        ensure!(
            format!("{refusal:#}").contains("must be at least 1: without decode nothing is served"),
            "{refusal:#}"
        );
        // Each for itself is allowed, and both together are not.
        scale(namespace, "chat-decode", 2).await?;
        asks_for(&chat, "decode", 2).await?;
        scale(namespace, "chat-prefill", 4095).await?;
        chat.says("Stalled", "True", "TooManyReplicas", SOON).await?;
        let found = chat.get().await?.status.context("no status")?;
        ensure!(found.decode.desired == 2 && found.prefill.desired == 0, "{found:?}");
        scale(namespace, "chat-prefill", 0).await?;
        chat.settled().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn scale_by_a_horizontal_pod_autoscaler() -> Result<()> {
    in_namespace("scale-hpa", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        // More than there are: an autoscaler reaches its least number without any metric.
        let scaler = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "chat-decode"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "shoal.dev/v1alpha1", "kind": "ServingRole", "name": "chat-decode"},
                "minReplicas": 2, "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 80}}}],
            },
        });
        namespace.kubectl_with(&scaler.to_string(), &["apply", "--filename", "-"]).await?;
        asks_for(&chat, "decode", 2).await?;
        chat.settled().await?;
        let scalers = namespace.api::<HorizontalPodAutoscaler>();
        namespace
            .until("the autoscaler is able to scale", SOON, async || {
                let status = scalers.get("chat-decode").await?.status.context("no status yet")?;
                let conditions = status.conditions.unwrap_or_default();
                let able = conditions.iter().find(|found| found.type_ == "AbleToScale").context("not yet")?;
                ensure!(able.status == "True", "{able:?}");
                ensure!(status.current_replicas == Some(2), "{:?}", status.current_replicas);
                Ok(())
            })
            .await
    })
    .await
}
