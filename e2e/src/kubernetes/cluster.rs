//! The cluster that KUBECONFIG leads to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client};

use super::program::{self, cluster_script};
use crate::until;

/// Where scripts/e2e.sh installs the chart.
pub const OPERATOR_NAMESPACE: &str = "shoal-system";
/// Its Deployment, as the chart names it in a release called "shoal", and the name in the label of its pods.
pub const OPERATOR: &str = "shoal-operator";

#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cluster")
    }
}

impl Cluster {
    /// A test cluster, or `None` after saying what is lacking. `KUBECONFIG` alone is not enough: it may lead to a
    /// cluster that people use.
    ///
    /// # Errors
    /// When `SHOAL_REQUIRE_CLUSTER=1` and there is none, or the one that is named does not answer.
    pub async fn find() -> Result<Option<Self>> {
        let named = |variable: &str| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        if !named("KUBECONFIG") || !named("SHOAL_CLUSTER") {
            let lacked =
                "no test cluster: KUBECONFIG and SHOAL_CLUSTER are not both set; run it with: make e2e";
            ensure!(std::env::var_os("SHOAL_REQUIRE_CLUSTER").is_none_or(|value| value != "1"), lacked);
            eprintln!("skipped: {lacked}");
            return Ok(None);
        }
        let config = kube::Config::infer().await.context("KUBECONFIG cannot be used")?;
        let client = Client::try_from(config)?;
        client.apiserver_version().await.context("the test cluster does not answer")?;
        Ok(Some(Self { client }))
    }

    /// Whether pods go to nodes that `scripts/cluster.sh fake-nodes` made, and to no others.
    pub async fn is_fake(&self) -> Result<bool> {
        let nodes = Api::<Node>::all(self.client.clone()).list_metadata(&ListParams::default()).await?.items;
        let fake = |labels: Option<&BTreeMap<String, String>>| {
            labels.is_some_and(|labels| labels.contains_key("shoal.test/fake"))
        };
        Ok(!nodes.is_empty() && nodes.iter().all(|node| fake(node.metadata.labels.as_ref())))
    }

    /// The operator's pods that are not on their way out.
    pub async fn operator_pods(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let found =
            api.list(&ListParams::default().labels(&format!("app.kubernetes.io/name={OPERATOR}"))).await?;
        Ok(found.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
    }

    /// Waits until the operator's Deployment has settled.
    pub async fn operator_ready(&self) -> Result<()> {
        let deployment = format!("deployment/{OPERATOR}");
        let rollout = ["--namespace", OPERATOR_NAMESPACE, "rollout", "status", &deployment, "--timeout=120s"];
        program::kubectl(&rollout).await.map(drop)
    }

    /// Takes a node's power away.
    pub async fn cut_node(&self, name: &str) -> Result<()> {
        cluster_script(&["node", "cut", number(name)?]).await.map(drop)
    }

    /// Boots a node again, with its disk, and waits until it is ready.
    pub async fn boot_node(&self, name: &str) -> Result<()> {
        cluster_script(&["node", "up", number(name)?]).await?;
        // Its lease may still look fresh from before the cut, so ask for a ready condition that is new.
        program::kubectl(&["wait", "--for=condition=Ready", &format!("node/{name}"), "--timeout=120s"])
            .await
            .map(drop)
    }

    /// Ends the API server; etcd and everything else go on.
    pub async fn stop_api_server(&self) -> Result<()> {
        cluster_script(&["apiserver", "stop"]).await.map(drop)
    }

    /// Starts the API server again and waits until it answers.
    pub async fn start_api_server(&self) -> Result<()> {
        cluster_script(&["apiserver", "start"]).await?;
        until("the API server answers", Duration::from_mins(2), || async {
            self.client.apiserver_version().await.map(drop).context("no answer")
        })
        .await
    }
}

/// `node2` is number 2 to the script.
fn number(node: &str) -> Result<&str> {
    node.strip_prefix("node").with_context(|| format!("{node} is no node of the test cluster"))
}
