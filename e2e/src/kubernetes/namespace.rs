//! A namespace of a test's own, gone after it.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Namespace as Object, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use super::program::{kubectl, kubectl_with, run};
use super::{Cluster, Serving, report};
use crate::until;

static COUNT: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Clone)]
pub struct Namespace {
    pub cluster: Cluster,
    pub name: String,
}

/// Runs a test in a fresh namespace and deletes it, whatever comes of the test; without a cluster says so and does
/// nothing.
///
/// # Errors
/// The test's own, with what the namespace held.
pub async fn in_namespace(name: &str, test: impl AsyncFnOnce(&Namespace) -> Result<()>) -> Result<()> {
    let Some(cluster) = Cluster::find().await? else { return Ok(()) };
    let namespace = Namespace::create(cluster, name).await?;
    let outcome = AssertUnwindSafe(Box::pin(test(&namespace))).catch_unwind().await;
    if !matches!(outcome, Ok(Ok(()))) {
        eprintln!("{}", report::of(&namespace).await);
    }
    namespace.delete().await?;
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Namespace {
    /// Its name has the process in it, so that a second run need not wait until the first run's is gone.
    pub async fn create(cluster: Cluster, name: &str) -> Result<Self> {
        let name = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let object: Object = serde_json::from_value(json!({"metadata": {
            "name": name,
            "labels": {
                "shoal-e2e": "true",
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            },
        }}))?;
        Api::<Object>::all(cluster.client.clone()).create(&PostParams::default(), &object).await?;
        let namespace = Self { cluster, name };
        // Pods are refused until it has the account that they get by default. After an outage of the API server the
        // controller that makes it takes a minute to come back.
        until("the namespace has an account", Duration::from_mins(2), || async {
            namespace.kubectl(&["get", "serviceaccount", "default"]).await
        })
        .await?;
        Ok(namespace)
    }

    /// Asks for its end and does not wait for it.
    pub async fn delete(&self) -> Result<()> {
        let api: Api<Object> = Api::all(self.cluster.client.clone());
        // What fails is what a test has failed at before: the message is already out.
        api.delete(&self.name, &DeleteParams::background()).await.context("deleting the namespace")?;
        // Draining takes its time, and cores that other tests need.
        let force = ["delete", "pods", "--all", "--grace-period=1", "--wait=false"];
        self.kubectl(&force).await.map(drop)
    }

    /// kubectl in this namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        kubectl(&[&["--namespace", self.name.as_str()], arguments].concat()).await
    }

    /// The same with a document on standard input.
    pub async fn kubectl_with(&self, document: &str, arguments: &[&str]) -> Result<String> {
        kubectl_with(document, &[&["--namespace", self.name.as_str()], arguments].concat()).await
    }

    /// What `kubectl apply` says of a document that the API server must refuse.
    pub async fn refusal(&self, document: &str) -> Result<String> {
        let arguments = ["--namespace", &self.name, "apply", "--filename", "-"];
        let output = run("kubectl", &arguments, Some(document)).await?;
        ensure!(!output.status.success(), "accepted, and should have been refused:\n{document}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Applies a `ServingCluster` as a user does.
    pub async fn apply(&self, manifest: &serde_json::Value) -> Result<Serving> {
        self.kubectl_with(&manifest.to_string(), &["apply", "--filename", "-"]).await?;
        let name = manifest["metadata"]["name"].as_str().context("a manifest has a name")?;
        Ok(Serving { namespace: self.clone(), name: name.to_owned() })
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    pub async fn pods(&self, selector: &str) -> Result<Vec<Pod>> {
        Ok(self.api::<Pod>().list(&ListParams::default().labels(selector)).await?.items)
    }

    /// Every object in it of every kind, as `kind/name`, but those that a namespace has by itself and events.
    pub async fn objects(&self) -> Result<Vec<String>> {
        let kinds = self
            .kubectl(&["api-resources", "--namespaced", "--verbs=list", "--output=name"])
            .await?
            .lines()
            .filter(|kind| !kind.starts_with("events") && !kind.starts_with("pods.metrics"))
            .collect::<Vec<_>>()
            .join(",");
        let found = self.kubectl(&["get", &kinds, "--output=name", "--ignore-not-found"]).await?;
        let own = ["serviceaccount/default", "configmap/kube-root-ca.crt"];
        Ok(found.lines().filter(|line| !own.contains(line)).map(str::to_owned).collect())
    }

    /// Repeats `check` until it succeeds; the failure then tells what the namespace holds.
    pub async fn until<T>(
        &self,
        what: &str,
        within: Duration,
        check: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let mut check = check;
        let began = std::time::Instant::now();
        loop {
            match check().await {
                Ok(value) => return Ok(value),
                Err(error) if began.elapsed() > within => {
                    bail!("{what}: not within {within:?}: {error:#}");
                }
                // The API server is asked; ten times a second is enough.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}
