//! `kubectl shoal` against a fleet that runs, one that cannot, and with fewer rights.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shoal_e2e::kubernetes::{Namespace, in_namespace, program, small};

const PLUGIN: &str = "target/release/kubectl-shoal";

async fn plugin(namespace: &Namespace, arguments: &[&str]) -> Result<Output> {
    program::run(PLUGIN, &[arguments, &["--namespace", namespace.name.as_str()]].concat(), None).await
}

/// Standard output of a run that ended with this code.
async fn told(namespace: &Namespace, code: i32, arguments: &[&str]) -> Result<String> {
    let output = plugin(namespace, arguments).await?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(code), "{arguments:?} ended with {}:\n{out}{err}", output.status);
    Ok(out + &err)
}

async fn says(namespace: &Namespace, code: i32, arguments: &[&str], words: &[&str]) -> Result<()> {
    let text = told(namespace, code, arguments).await?;
    for word in words {
        ensure!(text.contains(word), "{arguments:?} does not say {word:?}:\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn plugin_shows_a_fleet_talks_to_it_and_finds_nothing_wrong() -> Result<()> {
    in_namespace("plugin-serves", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 1)).await?;
        chat.settled().await?;
        let status: Value =
            serde_json::from_str(&told(namespace, 0, &["status", "chat", "-o", "json"]).await?)?;
        assert_eq!((&status["ready"], &status["health"]), (&json!(true), &json!("Ready")));
        let pods = status["pods"].as_array().context("pods")?;
        let loaded =
            pods.iter().filter(|pod| pod["load"]["pagesTotal"].as_f64().is_some_and(|all| all > 0.0));
        assert_eq!(loaded.count(), 2, "both engines tell their load: {status:#}");
        let question = ["chat", "chat", "-m", "Count to five.", "--max-tokens", "16", "-t", "0", "--stats"];
        says(namespace, 0, &question, &["tokens/s", "KV moved", "remote"]).await?;
        let top = told(namespace, 0, &["top", "chat", "--once", "--interval", "1", "-o", "json"]).await?;
        let top: Value = serde_json::from_str(&top)?;
        assert_eq!(top["instances"].as_array().map(Vec::len), Some(2), "{top:#}");
        says(namespace, 0, &["logs", "chat", "--role", "prefill"], &["model loaded", "role=\"prefill\""])
            .await?;
        says(namespace, 0, &["events", "chat"], &["CreateInstance", "ServingCluster/chat"]).await?;
        let sound = ["gateway: made a token", "2 that are ready answer", "enforces restricted", "0 failed"];
        // The second gateway may come up after the fleet serves.
        let within = std::time::Duration::from_mins(1);
        let doctor = async || says(namespace, 0, &["doctor", "chat"], &sound).await;
        namespace.until("the doctor finds nothing", within, doctor).await
    })
    .await
}

#[tokio::test]
async fn plugin_says_why_a_fleet_does_not_start_and_what_to_do() -> Result<()> {
    in_namespace("plugin-broken", async |namespace| {
        let mut manifest = small("chat", 1, 1);
        manifest["spec"]["model"]["source"]["path"] = json!("/models/absent.gguf");
        let chat = namespace.apply(&manifest).await?;
        chat.says("Degraded", "True", "absent.gguf", std::time::Duration::from_mins(2)).await?;
        // Which of the two crashes first is nobody's choice, and both crash again and again.
        let remedy = format!("kubectl shoal logs chat -n {} --instance chat-0-1 --previous", namespace.name);
        let within = std::time::Duration::from_mins(2);
        namespace
            .until("the crash is shown", within, async || {
                let seen = ["NotReady", "chat-0-1 crashed", "/models/absent.gguf"];
                says(namespace, 1, &["status", "chat"], &seen).await?;
                says(namespace, 1, &["doctor", "chat"], &["FAIL", "no pod of it is ready", &remedy]).await
            })
            .await?;
        for command in ["status", "doctor"] {
            says(namespace, 3, &[command, "absent"], &["there is no ServingCluster \"absent\""]).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn plugin_report_holds_no_secret_of_the_namespace() -> Result<()> {
    in_namespace("plugin-report", async |namespace| {
        let planted = "hunter2-c0rrect-h0rse";
        let literal = format!("--from-literal=password={planted}");
        namespace.kubectl(&["create", "secret", "generic", "planted", &literal]).await?;
        namespace.kubectl(&["create", "configmap", "planted", &literal]).await?;
        let chat = namespace.apply(&small("chat", 1, 1)).await?;
        chat.settled().await?;
        let fleet =
            namespace.kubectl(&["get", "secret", "chat-fleet", "--output=jsonpath={.data.*}"]).await?;
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("report.tar.gz");
        let archive = archive.to_str().context("a path")?;
        says(namespace, 0, &["report", "chat", "-o", archive], &["files"]).await?;
        let unpacked = program::run("tar", &["-xzOf", archive], None).await?;
        let text = String::from_utf8_lossy(&unpacked.stdout);
        for kept in ["kind: ServingCluster", "model loaded", "shoal_engine_kv_pages", "CreateInstance"] {
            ensure!(text.contains(kept), "{kept:?} is missing");
        }
        for secret in fleet.split_whitespace().chain([planted]) {
            ensure!(!text.contains(secret), "a secret is in the report");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn plugin_goes_on_with_what_a_user_may_see_and_names_the_rest() -> Result<()> {
    in_namespace("plugin-rights", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 1)).await?;
        chat.settled().await?;
        for account in ["viewer", "nobody"] {
            namespace.kubectl(&["create", "serviceaccount", account]).await?;
        }
        let viewer = format!("system:serviceaccount:{}:viewer", namespace.name);
        let nobody = format!("system:serviceaccount:{}:nobody", namespace.name);
        let subject = format!("--serviceaccount={}:viewer", namespace.name);
        namespace.kubectl(&["create", "rolebinding", "viewer", "--clusterrole=view", &subject]).await?;
        let seen = ["chat-0-1", "Nothing moves", "forbidden: get pods/proxy"];
        // A right is in force a moment after it was given.
        let within = std::time::Duration::from_secs(20);
        namespace
            .until("the viewer sees", within, async || {
                says(namespace, 0, &["status", "chat", "--as", &viewer], &seen).await
            })
            .await?;
        says(namespace, 0, &["logs", "chat", "--as", &viewer], &["model loaded"]).await?;
        says(namespace, 3, &["chat", "chat", "-m", "hello", "--as", &viewer], &["services/proxy"]).await?;
        let named = ["chat", "chat", "-m", "hello", "--model", "smollm2", "--as", &viewer];
        says(namespace, 3, &named, &["services/proxy"]).await?;
        let unasked = ["get pods/proxy", "unseen", "0 failed"];
        says(namespace, 0, &["doctor", "chat", "--as", &viewer], &unasked).await?;
        says(namespace, 3, &["status", "chat", "--as", &nobody], &["forbidden", "servingclusters"]).await
    })
    .await
}
