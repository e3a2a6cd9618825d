//! What users add to pods: it reaches those it is meant for, and nothing that serves is lost over it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use shoal_e2e::kubernetes::{Serving, in_namespace, small};

const SOON: Duration = Duration::from_mins(2);

fn uids(pods: &BTreeMap<String, Pod>) -> Vec<String> {
    pods.values().filter_map(|pod| pod.metadata.uid.clone()).collect()
}

fn all_have(pods: &BTreeMap<String, Pod>, team: &str) -> bool {
    let has =
        |pod: &Pod| pod.metadata.labels.iter().flatten().any(|(key, value)| key == "team" && value == team);
    pods.values().all(has)
}

#[tokio::test]
async fn overlay_of_the_engine_replaces_instances_and_that_of_the_gateway_only_gateways() -> Result<()> {
    in_namespace("overlay", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let (instances, gateways) = (chat.instances().await?, chat.gateways().await?);
        let engine = json!({"metadata": {"labels": {"team": "search"}}, "spec": {"containers": [
            {"name": "engine", "env": [{"name": "SHOAL_LOG", "value": "debug"}], "resources": {"limits": {"cpu": 2}}},
        ]}});
        chat.patch(&json!({"spec": {"engine": {"podTemplate": engine}}})).await?;
        let replaced = namespace
            .until("every instance has the label", SOON, async || {
                let found = chat.instances().await?;
                ensure!(found.len() == 1 && all_have(&found, "search"), "{:?}", found.keys());
                Ok(found)
            })
            .await?;
        ensure!(uids(&replaced) != uids(&instances), "no instance was replaced");
        ensure!(uids(&chat.gateways().await?) == uids(&gateways), "gateways were replaced too");
        chat.settled().await?;
        chat.ask("The sea", 4).await?;

        let gateway = json!({"metadata": {"labels": {"team": "web"}}});
        chat.patch(&json!({"spec": {"gateway": {"podTemplate": gateway, "replicas": 1}}})).await?;
        namespace
            .until("the one gateway has the label", SOON, async || {
                let found = chat.gateways().await?;
                ensure!(found.len() == 1 && all_have(&found, "web"), "{:?}", found.keys());
                Ok(())
            })
            .await?;
        ensure!(uids(&chat.instances().await?) == uids(&replaced), "instances were replaced too");
        chat.settled().await?;
        chat.ask("The sea", 4).await.map(drop)
    })
    .await
}

/// Waits for the words, then takes the change back: what ran has served on, and is the same.
async fn refused_and_taken_back(
    chat: &Serving,
    change: serde_json::Value,
    back: serde_json::Value,
    words: &str,
) -> Result<()> {
    let before = chat.uids().await?;
    chat.patch(&change).await?;
    chat.says("Stalled", "True", words, Duration::from_secs(30)).await?;
    chat.ask("The sea", 4).await?;
    chat.patch(&back).await?;
    chat.settled().await?;
    ensure!(chat.uids().await? == before, "pods were replaced over a change that was taken back");
    Ok(())
}

#[tokio::test]
async fn overlay_that_cannot_be_is_told_and_what_ran_serves_on() -> Result<()> {
    in_namespace("overlay-refused", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let misspelt = json!({"spec": {"affinity": {"nodeAffinty": {}}}});
        let none = json!({"spec": {"engine": {"podTemplate": null}}});
        let change = json!({"spec": {"engine": {"podTemplate": misspelt}}});
        let words = "spec.engine.podTemplate.spec.affinity.nodeAffinty: is not a field";
        refused_and_taken_back(&chat, change, none.clone(), words).await?;
        // The namespace enforces the restricted standard.
        let privileged = json!({"spec": {"containers": [{"name": "x", "image": "x",
            "securityContext": {"privileged": true}}]}});
        let change = json!({"spec": {"engine": {"podTemplate": privileged}}});
        refused_and_taken_back(&chat, change, none, "PodSecurityRefused").await
    })
    .await
}
