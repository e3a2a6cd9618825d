//! Clients while instances come and go: every answer is whole, and the one that an undisturbed fleet gives.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use shoal_e2e::kubernetes::{Load, Serving, in_namespace, kill, small};

const CLIENTS: usize = 2;
/// Minutes, because a machine that other things run on too may be slow.
const ANSWERS: Duration = Duration::from_mins(5);

#[tokio::test]
async fn serve_streams_go_on_while_a_decode_pod_is_deleted() -> Result<()> {
    in_namespace("serve-delete", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 2)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        let load = Load::start(&chat, CLIENTS).await?;
        load.answers(CLIENTS, ANSWERS).await?;
        let gone = name(&chat.instance_of("decode").await?);
        namespace.kubectl(&["delete", "pod", &gone, "--wait=false"]).await?;
        load.answers(CLIENTS, ANSWERS).await?;
        chat.settled().await?;
        load.answers(CLIENTS, ANSWERS).await?;
        load.stop().await?.flawless()?;
        let after = chat.uids().await?;
        assert_eq!(after.len(), before.len());
        let stay = before.iter().filter(|(name, _)| **name != gone);
        ensure!(stay.clone().all(|(name, uid)| after.get(name) == Some(uid)), "{before:?} {after:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn serve_a_killed_engine_costs_no_answer_and_its_node_starts_it_again() -> Result<()> {
    in_namespace("serve-kill", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 2)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        let load = Load::start(&chat, CLIENTS).await?;
        for role in ["decode", "prefill"] {
            load.answers(CLIENTS, ANSWERS).await?;
            let pod = chat.instance_of(role).await?;
            kill(&pod).await?;
            started_again(&chat, &name(&pod)).await?;
        }
        load.answers(CLIENTS, ANSWERS).await?;
        load.stop().await?.flawless()?;
        chat.settled().await?;
        assert_eq!(chat.uids().await?, before, "no pod was replaced");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn serve_scaling_in_lets_streams_end() -> Result<()> {
    in_namespace("serve-scale", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 3)).await?;
        chat.settled().await?;
        let load = Load::start(&chat, CLIENTS).await?;
        load.answers(CLIENTS, ANSWERS).await?;
        let spec = serde_json::json!({"spec": {"prefill": {"replicas": 0}, "decode": {"replicas": 1}}});
        chat.patch(&spec).await?;
        chat.settled().await?;
        load.answers(CLIENTS, ANSWERS).await?;
        load.stop().await?.flawless()
    })
    .await
}

async fn started_again(chat: &Serving, pod: &str) -> Result<()> {
    let again = async || {
        let found = chat.instances().await?.remove(pod).context("the pod is gone")?;
        let status = found.status.and_then(|status| status.container_statuses?.into_iter().next());
        let status = status.context("no container")?;
        ensure!(status.restart_count > 0 && status.ready, "{} restarts", status.restart_count);
        Ok(())
    };
    chat.namespace.until(&format!("{pod} runs again"), ANSWERS, again).await
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}
