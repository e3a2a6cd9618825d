//! Models that are fetched: from servers in the test's own process, to nodes' disks and into a claim.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shoal_crds::Loading;
use shoal_e2e::kubernetes::{Namespace, Serving, in_namespace, program, small};
use shoal_e2e::model;

use crate::store::{Bucket, FileServer};

/// For an image that starts, a file that is fetched, a status that follows every 15 s.
const SOON: Duration = Duration::from_mins(3);
const FILE: &str = "smollm2.gguf";

#[tokio::test]
async fn download_shows_how_far_it_is_and_what_was_fetched_serves() -> Result<()> {
    let Some((_, content, sha256)) = test_model()? else { return Ok(()) };
    in_namespace("download-disk", async |namespace| {
        let server = FileServer::start(content.clone()).await?;
        let chat = namespace.apply(&fetching(&json!([{"url": server.url(FILE), "sha256": sha256}]))).await?;
        for percent in [30, 70] {
            server.let_through(content.len() / 100 * percent);
            let loading = reached(&chat, i64::try_from(percent)?).await?;
            assert_eq!((loading.phase.as_str(), loading.instances), ("Downloading", 1));
            assert_eq!(loading.bytes_total, i64::try_from(content.len())?);
        }
        ensure!(chat.condition("Ready").await?.status == "False", "nobody serves yet");
        server.let_through(content.len());
        let settled = chat.settled().await?;
        assert_eq!(settled.status.and_then(|status| status.loading), None);
        chat.ask("The capital of France is", 4).await?;
        // The one instance and both gateways, each to its own node's disk.
        assert_eq!(server.wholes.count(), 3);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn download_of_another_content_is_named_while_the_old_fleet_serves_and_an_edit_mends_it() -> Result<()>
{
    let Some((_, content, sha256)) = test_model()? else { return Ok(()) };
    in_namespace("download-wrong", async |namespace| {
        let server = FileServer::start(content.clone()).await?;
        server.let_through(content.len());
        let chat = namespace.apply(&small("chat", 0, 1)).await?;
        chat.settled().await?;
        let (wrong, host) = ("0".repeat(64), server.host());
        let source = |sum: &str| {
            let files = json!([{"url": server.url(FILE), "sha256": sum}]);
            json!({"spec": {"model": {"source": {"path": format!("/{FILE}"), "download": {"files": files}}}}})
        };
        chat.patch(&source(&wrong)).await?;
        let told = format!(
            "the model cannot be fetched (exit 1: {FILE}: http://{host}/{FILE} has SHA-256 {sha256}, wanted is {wrong})"
        );
        chat.says("Degraded", "True", &told, SOON).await?;
        chat.ask("The capital of France is", 4).await?;
        assert_eq!(chat.condition("Ready").await?.status, "True");
        chat.patch(&source(&sha256)).await?;
        chat.settled().await?;
        chat.ask("The capital of France is", 4).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn download_from_a_store_into_a_claim_is_fetched_once_for_all_pods() -> Result<()> {
    let Some((file, _, sha256)) = test_model()? else { return Ok(()) };
    in_namespace("download-claim", async |namespace| {
        let (store, disk) = (Bucket::start(FILE, &file).await?, tempfile::tempdir()?);
        claim(namespace, disk.path()).await?;
        let outcome = fetched_once(namespace, &store, &sha256).await;
        // A volume is in no namespace.
        program::kubectl(&["delete", "persistentvolume", &namespace.name, "--wait=false"]).await?;
        outcome?;
        assert_eq!(std::fs::metadata(disk.path().join(FILE))?.len(), std::fs::metadata(&file)?.len());
        Ok(())
    })
    .await
}

async fn fetched_once(namespace: &Namespace, store: &Bucket, sha256: &str) -> Result<()> {
    secret(namespace, &store.credentials("another secret")).await?;
    let mut manifest = fetching(&json!([{"url": Bucket::url(FILE), "sha256": sha256}]));
    manifest["spec"]["model"]["source"]["claim"] = json!("models");
    manifest["spec"]["model"]["source"]["download"]["credentials"] = json!("store");
    let chat = namespace.apply(&manifest).await?;
    let refused = "403 Forbidden; the credentials are missing or not allowed to read it";
    chat.says("Degraded", "True", refused, SOON).await?;
    // Nothing else has to be touched: the step reads its Secret anew each time that its node starts it.
    secret(namespace, &store.credentials(Bucket::SECRET)).await?;
    chat.settled().await?;
    chat.patch(&json!({"spec": {"decode": {"replicas": 2}}})).await?;
    chat.settled().await?;
    chat.ask("The capital of France is", 4).await?;
    assert_eq!(store.wholes.count(), 1, "four pods, one file, one download");
    Ok(())
}

/// The file, its content, and its checksum.
fn test_model() -> Result<Option<(PathBuf, Bytes, String)>> {
    let Some(file) = model::find()? else { return Ok(None) };
    let content = std::fs::read(&file)?;
    let digits = Sha256::digest(&content).into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let sha256 = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
    Ok(Some((file, content.into(), sha256)))
}

/// A small fleet whose one file is fetched.
fn fetching(files: &Value) -> Value {
    let mut manifest = small("chat", 0, 1);
    manifest["spec"]["model"]["source"] = json!({"path": format!("/{FILE}"), "download": {"files": files}});
    manifest
}

/// Waits until the status tells this many hundredths, one more or less.
async fn reached(chat: &Serving, percent: i64) -> Result<Loading> {
    let told = async || {
        let loading = chat.get().await?.status.context("no status")?.loading.context("nothing is told")?;
        let done = loading.bytes_done * 100 / loading.bytes_total.max(1);
        ensure!((percent - 1..=percent).contains(&done), "{loading:?}");
        Ok(loading)
    };
    chat.namespace.until(&format!("{percent} % are told"), SOON, told).await
}

/// A folder of the first node, which every pod that uses the claim is then placed on.
async fn claim(namespace: &Namespace, folder: &Path) -> Result<()> {
    let size = json!({"storage": "1Gi"});
    let node = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]});
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace.name}, "spec": {
        "capacity": size, "accessModes": ["ReadWriteMany"], "persistentVolumeReclaimPolicy": "Retain",
        "local": {"path": folder}, "claimRef": {"namespace": namespace.name, "name": "models"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [node]}]}}}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": {
        "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": namespace.name,
        "resources": {"requests": size}}});
    for object in [volume, claim] {
        namespace.kubectl_with(&object.to_string(), &["apply", "--filename", "-"]).await?;
    }
    Ok(())
}

/// The Secret `store`, made or replaced.
async fn secret(namespace: &Namespace, values: &[(&str, String)]) -> Result<()> {
    let data: Value = values.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let object =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store"}, "stringData": data});
    namespace.kubectl_with(&object.to_string(), &["apply", "--filename", "-"]).await.map(drop)
}
