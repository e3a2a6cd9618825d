//! Many short lives of a `ServingCluster`, each disturbed at one point, judged by one that was not.
//!
//! ```text
//! life: create, scale up, scale down, new settings, delete
//!   undisturbed, twice ──> its writes = where to disturb; its end = what every life has to come to
//!   for each write, each fault: the same life ──> oracles
//! ```
//!
//! Lives run beside each other, each in a namespace of its own with an operator and a lease of its own.

mod life;
mod normal;
mod oracle;
mod plan;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use kube::{
    Client,
    core::ApiResource,
    discovery::{Discovery, Scope, verbs},
};

use super::engines::{self, Engines};

pub use life::Record;
pub use oracle::Reference;
pub use plan::{Disturbance, ORDINARY, Plan, TWICE, plans};

/// What all lives share.
#[derive(Clone)]
pub struct World {
    client: Client,
    /// Does not try again by itself.
    plain: Client,
    engines: Arc<Engines>,
    /// Every kind of object that a namespace can hold, but for events and leases.
    kinds: Arc<Vec<ApiResource>>,
    folder: PathBuf,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl World {
    /// Of a cluster whose nodes are all fake. Logs go to `folder`.
    pub async fn enter(folder: PathBuf) -> Result<Self> {
        let mut config = kube::Config::infer().await.context("KUBECONFIG cannot be used")?;
        let client = Client::try_from(config.clone())?;
        config.default_retry = false;
        let plain = Client::try_from(config)?;
        let engines = Arc::new(engines::start(client.clone()).await?);
        let kinds = Arc::new(kinds(&client).await?);
        std::fs::create_dir_all(&folder)?;
        Ok(Self { client, plain, engines, kinds, folder })
    }

    /// One life. Its record is judged by nobody yet.
    pub async fn live(&self, plan: &Plan, number: usize) -> Result<Record> {
        life::live(self, plan, &format!("life-{}-{number}", std::process::id())).await
    }
}

async fn kinds(client: &Client) -> Result<Vec<ApiResource>> {
    let mut found = Vec::new();
    for group in Discovery::new(client.clone()).run().await?.groups() {
        for (kind, able) in group.recommended_resources() {
            let told = ["Event", "Lease"].contains(&kind.kind.as_str());
            if able.scope == Scope::Namespaced && able.supports_operation(verbs::LIST) && !told {
                found.push(kind);
            }
        }
    }
    ensure!(
        found.iter().any(|kind| kind.kind == "ServingCluster"),
        "the cluster does not know ServingClusters; apply crds/yaml first"
    );
    Ok(found)
}
