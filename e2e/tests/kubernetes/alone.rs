//! Tests that hurt the cluster or restart the operator. They run one at a time, after all others.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use shoal_e2e::kubernetes::{
    Cluster, Load, OPERATOR, OPERATOR_NAMESPACE, Serving, in_namespace, kill, program, small,
};
use tokio::time::Instant;

use crate::drift::at;

const CLIENTS: usize = 2;
/// Minutes, because a machine that other things run on too may be slow.
const ANSWERS: Duration = Duration::from_mins(5);
const LOST_NODE: &str = "node2";

#[tokio::test]
async fn upgrade_a_restart_of_the_operator_restarts_no_pod() -> Result<()> {
    in_namespace("upgrade-restart", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 1)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        let load = Load::start(&chat, CLIENTS).await?;
        restart_operator(&namespace.cluster).await?;
        // The new one has looked: it carries an edit out.
        chat.patch(&serde_json::json!({"spec": {"decode": {"replicas": 2}}})).await?;
        chat.settled().await?;
        load.stop().await?.flawless()?;
        let after = chat.uids().await?;
        assert_eq!(after.len(), before.len() + 1);
        ensure!(before.iter().all(|(name, uid)| after.get(name) == Some(uid)), "{before:?} {after:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn upgrade_of_the_chart_restarts_no_pod_of_a_fleet() -> Result<()> {
    in_namespace("upgrade-chart", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 1)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        let load = Load::start(&chat, CLIENTS).await?;
        let upgrade = ["upgrade", "shoal", "charts/shoal", "--namespace", OPERATOR_NAMESPACE, "--wait"];
        // Two replicas: one leads, and gives the lease to the other when it goes.
        program::helm(&[&upgrade[..], &["--set", "operator.replicas=2,operator.log=debug"]].concat()).await?;
        namespace.cluster.operator_ready().await?;
        program::helm(&upgrade).await?;
        namespace.cluster.operator_ready().await?;
        chat.patch(&serde_json::json!({"spec": {"decode": {"replicas": 2}}})).await?;
        chat.settled().await?;
        load.stop().await?.flawless()?;
        let after = chat.uids().await?;
        ensure!(before.iter().all(|(name, uid)| after.get(name) == Some(uid)), "{before:?} {after:?}");
        Ok(())
    })
    .await
}

/// An operator that has not read the old value cannot put it back. It looks for the secret only every few minutes, unless
/// it has just started.
#[tokio::test]
async fn drift_a_fleet_secret_that_nobody_knows_any_more_is_made_anew_and_new_pods_get_the_new_one()
-> Result<()> {
    in_namespace("drift-secret", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let before = at(namespace, "secret/chat-fleet", "/data").await?;
        namespace.kubectl(&["delete", "secret", "chat-fleet"]).await?;
        restart_operator(&namespace.cluster).await?;
        let again = async || {
            let data = at(namespace, "secret/chat-fleet", "/data").await?;
            ensure!(
                data != before && data["secret"].as_str().is_some_and(|text| text.len() > 80),
                "no value"
            );
            Ok(())
        };
        namespace.until("the secret is made anew", Duration::from_secs(30), again).await?;
        // What runs knows the old one and serves on.
        chat.ask("The capital of France is", 4).await?;
        namespace.kubectl(&["delete", "pods", "--all", "--wait=false"]).await?;
        chat.settled().await?;
        Ok(())
    })
    .await
}

/// As after a new secret, the operator looks when it starts.
#[tokio::test]
async fn drift_a_damaged_certificate_is_made_anew_and_the_fleet_serves_on() -> Result<()> {
    in_namespace("drift-certificate", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        let damage = r#"{"data": {"tls.crt": "bm9uZQ=="}}"#;
        namespace.kubectl(&["patch", "secret", "chat-tls", "--type=merge", "--patch", damage]).await?;
        restart_operator(&namespace.cluster).await?;
        let mended = async || {
            let certificate = at(namespace, "secret/chat-tls", "/data/tls.crt").await?;
            ensure!(certificate.as_str().is_some_and(|text| text.len() > 400), "{certificate}");
            Ok(())
        };
        namespace.until("the certificate is made anew", Duration::from_mins(1), mended).await?;
        chat.settled().await?;
        chat.ask("The capital of France is", 4).await?;
        assert_eq!(chat.uids().await?, before, "no pod was restarted for it");
        Ok(())
    })
    .await
}

/// The operator is left without its right to write network policies, says so where the user looks, and goes on once it
/// has it again.
#[tokio::test]
async fn rbac_a_right_that_is_taken_away_is_named_and_missed_no_more_when_it_is_back() -> Result<()> {
    in_namespace("rbac-taken", async |namespace| {
        let role = format!("shoal:{OPERATOR_NAMESPACE}:shoal");
        let whole = program::kubectl(&["get", "clusterrole", &role, "--output=json"]).await?;
        let mut less: serde_json::Value = serde_json::from_str(&whole)?;
        for rule in less["rules"].as_array_mut().into_iter().flatten() {
            if rule["resources"].as_array().is_some_and(|all| all.iter().any(|one| one == "networkpolicies"))
            {
                rule["verbs"] = serde_json::json!(["get", "list", "watch"]);
            }
        }
        program::kubectl_with(&less.to_string(), &["replace", "--filename", "-"]).await?;
        let told = async {
            let chat = namespace.apply(&small("chat", 0, 1)).await?;
            let said = chat.says("Stalled", "True", "networkpolicies", Duration::from_secs(30)).await?;
            ensure!(said.contains("patch") || said.contains("create"), "{said}");
            Ok(chat)
        };
        let told = told.await;
        let upgrade = ["upgrade", "shoal", "charts/shoal", "--namespace", OPERATOR_NAMESPACE, "--wait"];
        program::helm(&[&upgrade[..], &["--force-conflicts"]].concat()).await?;
        told?.settled().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn serve_goes_on_while_the_api_server_is_away_and_afterwards_nothing_was_made_anew() -> Result<()> {
    in_namespace("serve-outage", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 2)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        let victim = chat.instance_of("decode").await?;
        let load = Load::start(&chat, CLIENTS).await?;
        load.answers(CLIENTS, ANSWERS).await?;
        namespace.cluster.stop_api_server().await?;
        let outage = outage(&load, &victim).await;
        namespace.cluster.start_api_server().await?;
        outage?;
        load.answers(CLIENTS, ANSWERS).await?;
        load.stop().await?.flawless()?;
        chat.settled().await?;
        assert_eq!(chat.uids().await?, before, "no pod was replaced");
        Ok(())
    })
    .await
}

/// An engine dies in the middle; answers come until the end.
async fn outage(load: &Load, victim: &Pod) -> Result<()> {
    let seconds = std::env::var("SHOAL_OUTAGE_SECONDS").unwrap_or_else(|_| "45".to_owned());
    let end = Instant::now() + Duration::from_secs(seconds.parse().context("SHOAL_OUTAGE_SECONDS")?);
    load.answers(CLIENTS, ANSWERS).await?;
    kill(victim).await?;
    while Instant::now() < end {
        load.answers(CLIENTS, ANSWERS).await?;
    }
    Ok(())
}

#[tokio::test]
async fn serve_a_node_that_loses_its_power_costs_no_answer_of_gateways_elsewhere() -> Result<()> {
    in_namespace("serve-node", async |namespace| {
        let cluster = &namespace.cluster;
        // Gateways and operator elsewhere: a client of a gateway that is gone has lost its connection.
        program::kubectl(&["cordon", LOST_NODE]).await?;
        let prepared = prepare(cluster, &namespace.apply(&small("chat", 1, 1)).await?).await;
        program::kubectl(&["uncordon", LOST_NODE]).await?;
        prepared?;
        let chat = Serving { namespace: namespace.clone(), name: "chat".to_owned() };
        chat.patch(&serde_json::json!({"spec": {"decode": {"replicas": 2}}})).await?;
        chat.settled().await?;
        let on_lost = async || -> Result<Vec<String>> {
            let all = chat.instances().await?.into_iter().chain(chat.gateways().await?);
            Ok(all.filter(|(_, pod)| node(pod) == Some(LOST_NODE)).map(|(name, _)| name).collect())
        };
        let lost = on_lost().await?;
        assert_eq!(lost.len(), 1, "the new instance is on {LOST_NODE}: {lost:?}");
        let load = Load::start(&chat, CLIENTS).await?;
        load.answers(CLIENTS, ANSWERS).await?;
        cluster.cut_node(LOST_NODE).await?;
        let outcome = replaced(&chat, &load, &lost).await;
        cluster.boot_node(LOST_NODE).await?;
        outcome?;
        chat.settled().await?;
        load.stop().await?.flawless()
    })
    .await
}

/// Waits for an instance of the lost one's number elsewhere.
async fn replaced(chat: &Serving, load: &Load, lost: &[String]) -> Result<()> {
    load.answers(CLIENTS, ANSWERS).await?;
    let elsewhere = async || {
        let ready = chat.get().await?.status.unwrap_or_default().decode.ready;
        let found = chat.instances().await?;
        let here =
            found.iter().filter(|(name, pod)| !lost.contains(name) && node(pod) != Some(LOST_NODE)).count();
        ensure!(ready == 2 && here == 3, "{ready} ready, {here} on other nodes: {:?}", found.keys());
        Ok(())
    };
    // The first one in its place may still be given to the lost node, before that is known to be lost.
    chat.namespace
        .until("the lost instance is replaced elsewhere", Duration::from_mins(4), elsewhere)
        .await?;
    load.answers(CLIENTS, ANSWERS).await
}

async fn restart_operator(cluster: &Cluster) -> Result<()> {
    let deployment = format!("deployment/{OPERATOR}");
    program::kubectl(&["--namespace", OPERATOR_NAMESPACE, "rollout", "restart", &deployment]).await?;
    cluster.operator_ready().await
}

async fn prepare(cluster: &Cluster, chat: &Serving) -> Result<()> {
    for pod in cluster.operator_pods().await? {
        if node(&pod) == Some(LOST_NODE) {
            let name = pod.metadata.name.unwrap_or_default();
            program::kubectl(&["--namespace", OPERATOR_NAMESPACE, "delete", "pod", &name]).await?;
        }
    }
    cluster.operator_ready().await?;
    chat.settled().await.map(drop)
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}
