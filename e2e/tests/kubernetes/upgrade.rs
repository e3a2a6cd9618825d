//! Changes of what runs, under load. Upgrades of the operator itself are in `alone`.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use shoal_e2e::kubernetes::{Load, in_namespace, program, small};

const CLIENTS: usize = 2;
/// Minutes, because a machine that other things run on too may be slow.
const ANSWERS: Duration = Duration::from_mins(5);

#[tokio::test]
async fn upgrade_a_settings_change_replaces_every_instance_and_costs_no_answer() -> Result<()> {
    in_namespace("upgrade-settings", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 1)).await?;
        chat.settled().await?;
        let (before, gateways) = (chat.instances().await?, chat.gateways().await?);
        let load = Load::start(&chat, CLIENTS).await?;
        load.answers(CLIENTS, ANSWERS).await?;
        chat.patch(&json!({"spec": {"engine": {"maxBatch": 16}}})).await?;
        chat.settled().await?;
        load.answers(CLIENTS, ANSWERS).await?;
        load.stop().await?.flawless()?;
        let after = chat.instances().await?;
        ensure!(
            after.len() == 2 && after.keys().all(|name| !before.contains_key(name)),
            "{:?}",
            after.keys()
        );
        ensure!(chat.gateways().await?.keys().eq(gateways.keys()), "gateways have nothing to do with it");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn upgrade_gateways_roll_without_a_lost_answer() -> Result<()> {
    in_namespace("upgrade-gateway", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let (instances, before) = (chat.instances().await?, chat.gateways().await?);
        let load = Load::start(&chat, CLIENTS).await?;
        load.answers(CLIENTS, ANSWERS).await?;
        namespace.kubectl(&["rollout", "restart", "deployment/chat-gateway"]).await?;
        namespace.kubectl(&["rollout", "status", "deployment/chat-gateway", "--timeout=120s"]).await?;
        let rolled = async || {
            let now = chat.gateways().await?;
            ensure!(now.keys().all(|name| !before.contains_key(name)), "{:?}", now.keys());
            Ok(())
        };
        namespace.until("no gateway is an old one", ANSWERS, rolled).await?;
        load.answers(CLIENTS, ANSWERS).await?;
        load.stop().await?.flawless()?;
        ensure!(chat.instances().await?.keys().eq(instances.keys()), "instances have nothing to do with it");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn upgrade_the_chart_renders_the_same_twice() -> Result<()> {
    in_namespace("upgrade-render", async |_namespace| {
        for values in [&[][..], &["--set", "clusterWide=false,crds.install=false"]] {
            let arguments = [&["template", "shoal", "charts/shoal", "--namespace", "sea"], values].concat();
            let (one, two) = (program::helm(&arguments).await?, program::helm(&arguments).await?);
            ensure!(one.contains("kind: Deployment"), "{one}");
            assert_eq!(one, two);
        }
        Ok(())
    })
    .await
}
