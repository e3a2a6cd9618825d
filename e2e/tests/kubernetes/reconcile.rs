//! From what is asked for to what is there, and nothing more.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shoal_e2e::kubernetes::{Namespace, in_namespace, small};
use tokio::time::Instant;

/// For pods to end: they finish what they hold first.
const END: Duration = Duration::from_secs(90);
/// For how long nothing may be written.
const REST: Duration = Duration::from_secs(20);

#[tokio::test]
async fn reconcile_from_apply_to_an_answer_whose_prompt_another_instance_read() -> Result<()> {
    in_namespace("reconcile-answer", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 1)).await?;
        chat.settled().await?;
        // Several pages, so that prefilling elsewhere pays.
        let answer = chat.ask(&"Tell me about the sea. ".repeat(40), 16).await?;
        let (prefill, decode) = (chat.instance_of("prefill").await?, chat.instance_of("decode").await?);
        let cost = &answer["shoal"];
        assert_eq!(cost["prefill_instance"].as_str(), prefill.metadata.name.as_deref(), "{answer}");
        assert_eq!(cost["decode_instance"].as_str(), decode.metadata.name.as_deref(), "{answer}");
        ensure!(cost["kv_bytes"].as_u64() > Some(0), "{answer}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn reconcile_scaling_touches_no_pod_that_stays() -> Result<()> {
    in_namespace("reconcile-scale", async |namespace| {
        let chat = namespace.apply(&small("chat", 1, 1)).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        chat.patch(&json!({"spec": {"prefill": {"replicas": 2}, "decode": {"replicas": 3}}})).await?;
        chat.settled().await?;
        let more = chat.uids().await?;
        assert_eq!(more.len(), before.len() + 3);
        ensure!(before.iter().all(|(name, uid)| more.get(name) == Some(uid)), "{before:?} {more:?}");

        chat.patch(&json!({"spec": {"prefill": {"replicas": 0}, "decode": {"replicas": 1}}})).await?;
        chat.settled().await?;
        let fewer = chat.uids().await?;
        assert_eq!(fewer.len(), before.len() - 1, "one decode instance and the gateways: {fewer:?}");
        ensure!(fewer.iter().all(|(name, uid)| more.get(name) == Some(uid)), "{more:?} {fewer:?}");
        // Decode reads prompts itself now.
        chat.ask("The capital of France is", 4).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn reconcile_a_second_apply_a_diff_and_a_dry_run_change_nothing_and_at_rest_nothing_is_written()
-> Result<()> {
    in_namespace("reconcile-rest", async |namespace| {
        let manifest = small("chat", 1, 1);
        let chat = namespace.apply(&manifest).await?;
        chat.settled().await?;
        let before = (chat.get().await?.metadata.generation, chat.uids().await?);
        let text = manifest.to_string();
        let again = namespace.kubectl_with(&text, &["apply", "--filename", "-"]).await?;
        ensure!(again.contains("unchanged"), "{again}");
        // Its exit status says whether there is a difference.
        assert_eq!(namespace.kubectl_with(&text, &["diff", "--filename", "-"]).await?, "");
        let other = small("chat", 2, 5).to_string();
        namespace.kubectl_with(&other, &["apply", "--dry-run=server", "--filename", "-"]).await?;
        let server = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--filename", "-"];
        namespace.kubectl_with(&other, &server).await?;

        let after = chat.get().await?;
        assert_eq!((after.metadata.generation, chat.uids().await?), before);

        // Rest has no event that could be waited for: nothing must happen for a while. On a machine that is too busy an
        // engine may fall silent for a moment, which the status then tells.
        let rests = async || {
            let (began, until) = (versions(namespace).await?, Instant::now() + REST);
            while Instant::now() < until {
                let now = versions(namespace).await?;
                let written: Vec<_> = now.iter().filter(|(name, at)| began.get(*name) != Some(*at)).collect();
                ensure!(written.is_empty(), "written: {written:?}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        };
        namespace.until("nothing is written for a while", Duration::from_mins(3), rests).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn reconcile_deletion_leaves_nothing_and_the_name_can_be_used_again_at_once() -> Result<()> {
    in_namespace("reconcile-delete", async |namespace| {
        let manifest = small("chat", 1, 1);
        let chat = namespace.apply(&manifest).await?;
        chat.settled().await?;
        let before = chat.uids().await?;
        namespace.kubectl(&["delete", "servingcluster", "chat", "--wait=false"]).await?;
        namespace.until("the name is free", END, async || namespace.apply(&manifest).await).await?;
        chat.settled().await?;
        let after = chat.uids().await?;
        ensure!(after.values().all(|uid| !before.values().any(|old| old == uid)), "{before:?} {after:?}");

        namespace.kubectl(&["delete", "servingcluster", "chat"]).await?;
        let gone = async || {
            let left = namespace.objects().await?;
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(())
        };
        namespace.until("nothing is left", END, gone).await
    })
    .await
}

#[tokio::test]
async fn reconcile_two_clusters_in_a_namespace_do_not_see_each_other() -> Result<()> {
    in_namespace("reconcile-two", async |namespace| {
        // One is called like a child of the other.
        let one = namespace.apply(&small("chat", 1, 1)).await?;
        let other = namespace.apply(&small("chat-gateway", 0, 1)).await?;
        one.settled().await?;
        other.settled().await?;
        for serving in [&one, &other] {
            let names = serving.instances().await?;
            let answer = serving.ask("The capital of France is", 4).await?;
            let decode = answer["shoal"]["decode_instance"].as_str().context("no instance named")?;
            ensure!(names.contains_key(decode), "{decode} is none of {:?}", names.keys());
        }
        let before = one.uids().await?;
        namespace.kubectl(&["delete", "servingcluster", "chat-gateway"]).await?;
        let gone = async || {
            let left = other.uids().await?;
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(())
        };
        namespace.until("its pods are gone", END, gone).await?;
        assert_eq!(one.uids().await?, before);
        one.settled().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn reconcile_after_many_edits_in_a_moment_the_last_one_holds() -> Result<()> {
    in_namespace("reconcile-edits", async |namespace| {
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        for edit in 0..20 {
            let (prefill, decode) = (edit % 3, 1 + edit % 2);
            let spec = json!({"prefill": {"replicas": prefill}, "decode": {"replicas": decode},
                "engine": {"maxBatch": 8 + edit % 4}});
            chat.patch(&json!({"spec": spec})).await?;
        }
        chat.patch(&json!({"spec": {"prefill": {"replicas": 1}, "decode": {"replicas": 1},
            "engine": {"maxBatch": 16}}}))
            .await?;
        chat.settled().await?;
        let instances = chat.instances().await?;
        assert_eq!(instances.len(), 2, "{:?}", instances.keys());
        for (name, pod) in instances {
            let spec = pod.spec.context("a pod has a spec")?;
            let arguments = spec.containers.first().and_then(|c| c.args.clone()).unwrap_or_default();
            let batch = arguments.iter().skip_while(|flag| *flag != "--max-batch").nth(1);
            assert_eq!(batch.map(String::as_str), Some("16"), "{name}: {arguments:?}");
        }
        Ok(())
    })
    .await
}

/// Resource version of every object in the namespace.
async fn versions(namespace: &Namespace) -> Result<BTreeMap<String, String>> {
    let names = namespace.objects().await?;
    let arguments: Vec<&str> = names.iter().map(String::as_str).collect();
    let text = namespace.kubectl(&[&["get", "--output=json"], &arguments[..]].concat()).await?;
    let list: Value = serde_json::from_str(&text)?;
    let word =
        |item: &Value, at: &str| item.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let one = |item: &Value| {
        let name = format!("{}/{}", word(item, "/kind"), word(item, "/metadata/name"));
        (name, word(item, "/metadata/resourceVersion"))
    };
    Ok(list["items"].as_array().into_iter().flatten().map(one).collect())
}
