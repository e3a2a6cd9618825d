//! One `ServingCluster`: what it asks for, what it says of itself, and how it is reached.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};
use shoal_crds::{Condition, ServingCluster};

use super::Namespace;
use super::program::cluster_script;
use crate::http;

/// Where scripts/e2e.sh puts the test model into the images of engine and gateway.
pub const MODEL: &str = "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
/// From apply to Ready with images on the node; minutes, because cores are shared with other tests.
const READY: Duration = Duration::from_mins(5);

/// A fleet that fits many times on a small machine.
pub fn small(name: &str, prefill: u32, decode: u32) -> Value {
    json!({
        "apiVersion": "shoal.dev/v1alpha1",
        "kind": "ServingCluster",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "smollm2", "source": {"path": MODEL}},
            "engine": {"kvMemory": "64Mi", "maxContext": 2048},
            "prefill": {"replicas": prefill},
            "decode": {"replicas": decode},
        },
    })
}

#[derive(Debug, Clone)]
pub struct Serving {
    pub namespace: Namespace,
    pub name: String,
}

impl Serving {
    pub async fn get(&self) -> Result<ServingCluster> {
        Ok(self.namespace.api::<ServingCluster>().get(&self.name).await?)
    }

    /// The condition of this type, as far as it speaks of the newest spec.
    pub async fn condition(&self, kind: &str) -> Result<Condition> {
        let found = self.get().await?;
        let status = found.status.context("no status yet")?;
        ensure!(status.observed_generation == found.metadata.generation, "the newest spec was not seen yet");
        status.condition(kind).cloned().with_context(|| format!("no condition {kind}: {status:?}"))
    }

    /// Waits until it is all that the newest spec asks for, and answers.
    pub async fn settled(&self) -> Result<ServingCluster> {
        let what = format!("{} is what its spec asks for", self.name);
        self.namespace
            .until(&what, READY, async || {
                for (kind, wanted) in [("Ready", "True"), ("Progressing", "False"), ("Degraded", "False")] {
                    let found = self.condition(kind).await?;
                    ensure!(found.status == wanted, "{kind}: {} ({})", found.reason, found.message);
                }
                let found = self.get().await?;
                let status = found.status.as_ref().context("no status")?;
                for role in [&status.prefill, &status.decode] {
                    ensure!(role.desired == role.ready, "{}", role.summary);
                }
                // Nodes learn of a Service's pods a moment after the pods are ready.
                let address = self.address().await?;
                let connected = tokio::net::TcpStream::connect(&address).await;
                connected.with_context(|| format!("no node leads to {address} yet"))?;
                Ok(found)
            })
            .await
    }

    /// Waits for a condition of this status, whatever the spec that it speaks of; its message.
    pub async fn says(&self, kind: &str, status: &str, words: &str, within: Duration) -> Result<String> {
        let what = format!("{} says {kind}={status} with {words:?}", self.name);
        self.namespace
            .until(&what, within, async || {
                let found = self.condition(kind).await?;
                let text = format!("{}: {}", found.reason, found.message);
                ensure!(found.status == status && text.contains(words), "{kind}={}, {text}", found.status);
                Ok(text)
            })
            .await
    }

    /// `kubectl patch` with a merge patch.
    pub async fn patch(&self, patch: &Value) -> Result<()> {
        let arguments =
            ["patch", "servingcluster", &self.name, "--type=merge", "--patch", &patch.to_string()];
        self.namespace.kubectl(&arguments).await.map(drop)
    }

    /// Address of the gateway's Service, which the cluster's network leads to.
    pub async fn address(&self) -> Result<String> {
        let service = self.namespace.api::<Service>().get(&format!("{}-gateway", self.name)).await?;
        let spec = service.spec.unwrap_or_default();
        let port = spec.ports.iter().flatten().next().context("a port")?.port;
        Ok(format!("{}:{port}", spec.cluster_ip.context("no address yet")?))
    }

    /// One greedy completion.
    pub async fn ask(&self, prompt: &str, tokens: u32) -> Result<Value> {
        let body = json!({"model": "smollm2", "prompt": prompt, "max_tokens": tokens, "temperature": 0,
            "ignore_eos": true});
        http::post(&self.address().await?, "/v1/completions", &body).await?.ok()
    }

    /// Instances that were not asked to end, by pod name.
    pub async fn instances(&self) -> Result<BTreeMap<String, Pod>> {
        self.component("instance").await
    }

    pub async fn gateways(&self) -> Result<BTreeMap<String, Pod>> {
        self.component("gateway").await
    }

    /// Pod name and UID of all of them: equal sets mean that no pod was replaced.
    pub async fn uids(&self) -> Result<BTreeMap<String, String>> {
        let pods = self.instances().await?.into_iter().chain(self.gateways().await?);
        Ok(pods.map(|(name, pod)| (name, pod.metadata.uid.unwrap_or_default())).collect())
    }

    /// The one instance, or the first of several, whose pod has this role.
    pub async fn instance_of(&self, role: &str) -> Result<Pod> {
        let has =
            |pod: &Pod| pod.metadata.labels.iter().flatten().any(|(k, v)| k == "shoal.dev/role" && v == role);
        let found = self.instances().await?.into_values().find(has);
        found.with_context(|| format!("no instance has the role {role}"))
    }

    async fn component(&self, component: &str) -> Result<BTreeMap<String, Pod>> {
        let selector = format!("shoal.dev/cluster={},app.kubernetes.io/component={component}", self.name);
        let pods = self.namespace.pods(&selector).await?.into_iter();
        let stay = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(stay.map(|pod| (pod.metadata.name.clone().unwrap_or_default(), pod)).collect())
    }
}

/// SIGKILL to a pod's process, on its node: nobody is told beforehand.
pub async fn kill(pod: &Pod) -> Result<()> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).context("it has no node")?;
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
    let Some(id) = status.and_then(|status| status.container_id.as_ref()?.strip_prefix("containerd://"))
    else {
        bail!("no container of it runs");
    };
    let number = node.strip_prefix("node").context("a node of the test cluster")?;
    let tasks = ["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id];
    cluster_script(&[&["node", "exec", number], &tasks[..]].concat()).await.map(drop)
}
