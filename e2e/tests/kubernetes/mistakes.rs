//! Mistakes that admission cannot see: a condition says precisely what is wrong, what ran before serves on, and an
//! edit mends it.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use shoal_e2e::kubernetes::{MODEL, Serving, in_namespace, small};

/// Within which a user is told.
const TOLD: Duration = Duration::from_secs(30);

#[tokio::test]
async fn admit_a_model_that_is_not_there_is_named_while_the_old_fleet_serves_and_an_edit_mends_it()
-> Result<()> {
    in_namespace("admit-model", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        // Kubernetes would expand the first, a shell the second.
        let path = "/models/$(POD_IP) `id`.gguf";
        chat.patch(&json!({"spec": {"model": {"source": {"path": path}}}})).await?;
        chat.says("Degraded", "True", path, TOLD).await?;
        serves_and_is_mended(&chat, MODEL).await
    })
    .await
}

#[tokio::test]
async fn admit_a_claim_that_is_not_there_is_named_while_the_old_fleet_serves_and_an_edit_mends_it()
-> Result<()> {
    in_namespace("admit-claim", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let source = json!({"path": "/smollm2.gguf", "claim": "absent"});
        chat.patch(&json!({"spec": {"model": {"source": source}}})).await?;
        chat.says("Degraded", "True", "persistentvolumeclaim \"absent\" not found", TOLD).await?;
        serves_and_is_mended(&chat, MODEL).await
    })
    .await
}

#[tokio::test]
async fn admit_an_image_that_is_not_there_is_named_while_the_old_fleet_serves_and_going_back_mends_it()
-> Result<()> {
    in_namespace("admit-image", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        for component in ["engine", "gateway"] {
            chat.patch(&json!({"spec": {component: {"image": "localhost/absent:1"}}})).await?;
            chat.says("Degraded", "True", "image localhost/absent:1 cannot be pulled", TOLD).await?;
            chat.ask("The capital of France is", 4).await?;
            chat.patch(&json!({"spec": {component: {"image": null}}})).await?;
            chat.settled().await?;
            assert_eq!(chat.uids().await?, before, "{component}: the fleet is what it was");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn admit_too_little_room_is_named_while_the_old_fleet_serves_and_an_edit_mends_it() -> Result<()> {
    in_namespace("admit-room", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        chat.patch(&json!({"spec": {"engine": {"kvMemory": "3Ti"}}})).await?;
        chat.says("Degraded", "True", "Insufficient memory", TOLD).await?;
        chat.ask("The capital of France is", 4).await?;
        chat.patch(&json!({"spec": {"engine": {"kvMemory": "64Mi"}}})).await?;
        chat.settled().await?;
        assert_eq!(chat.uids().await?, before, "the fleet is what it was");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn admit_too_little_memory_is_named_while_the_old_fleet_serves_and_going_back_mends_it() -> Result<()> {
    in_namespace("admit-memory", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        let little = json!({"requests": {"memory": "16Mi"}, "limits": {"memory": "32Mi"}});
        let template = json!({"spec": {"containers": [{"name": "engine", "resources": little}]}});
        chat.patch(&json!({"spec": {"engine": {"podTemplate": template}}})).await?;
        chat.says("Degraded", "True", "crashed (out of memory)", TOLD).await?;
        chat.ask("The capital of France is", 4).await?;
        chat.patch(&json!({"spec": {"engine": {"podTemplate": null}}})).await?;
        chat.settled().await?;
        assert_eq!(chat.uids().await?, before, "the fleet is what it was");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn admit_a_quota_that_is_used_up_is_named_and_gone_with_it() -> Result<()> {
    in_namespace("admit-quota", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        let used = before.len().to_string();
        namespace.kubectl(&["create", "quota", "few", &format!("--hard=pods={used}")]).await?;
        chat.patch(&json!({"spec": {"decode": {"replicas": 2}}})).await?;
        chat.says("Stalled", "True", "exceeded quota: few", TOLD).await?;
        chat.ask("The capital of France is", 4).await?;
        chat.patch(&json!({"spec": {"decode": {"replicas": 1}}})).await?;
        chat.settled().await?;
        ensure!(chat.condition("Stalled").await.is_err(), "nothing stands in the way any more");
        assert_eq!(chat.uids().await?, before);

        chat.patch(&json!({"spec": {"decode": {"replicas": 2}}})).await?;
        chat.says("Stalled", "True", "exceeded quota: few", TOLD).await?;
        namespace.kubectl(&["delete", "quota", "few"]).await?;
        chat.settled().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn admit_a_name_that_somebody_else_has_is_told_and_never_taken_over() -> Result<()> {
    in_namespace("admit-taken", async |namespace| {
        namespace
            .kubectl(&["create", "service", "externalname", "chat-gateway", "--external-name=sea"])
            .await?;
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.says("Stalled", "True", "Service chat-gateway belongs to somebody else", TOLD).await?;
        let name = ["get", "service", "chat-gateway", "--output=jsonpath={.spec.externalName}"];
        assert_eq!(namespace.kubectl(&name).await?, "sea");
        namespace.kubectl(&["delete", "service", "chat-gateway"]).await?;
        chat.settled().await?;
        chat.ask("The capital of France is", 4).await?;
        Ok(())
    })
    .await
}

/// The fleet answers though its newest spec cannot be served; the right path brings all of it back.
async fn serves_and_is_mended(chat: &Serving, path: &str) -> Result<()> {
    chat.ask("The capital of France is", 4).await?;
    let ready = chat.condition("Ready").await?;
    assert_eq!(ready.status, "True", "{}: {}", ready.reason, ready.message);
    let source = json!({"path": path, "claim": null});
    chat.patch(&json!({"spec": {"model": {"source": source}}})).await?;
    chat.settled().await?;
    chat.ask("The capital of France is", 4).await?;
    Ok(())
}
