//! How many pods there are and how many are ready, as a watch tells.

use std::{collections::HashMap, pin::pin};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api, Client,
    api::ObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinHandle};

use crate::{NAMESPACE, PATIENCE};

/// What is looked at of a pod.
#[derive(kube::Resource, Serialize, Deserialize, Debug, Clone)]
#[resource(inherit = "Pod")]
struct Seen {
    metadata: ObjectMeta,
    status: Option<PodStatus>,
}

/// Pods in all, and ready ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    pub(crate) all: usize,
    pub(crate) ready: usize,
}

/// Follows the instances' pods of one cluster, until this is dropped.
#[derive(Debug)]
pub(crate) struct Pods {
    count: watch::Receiver<Count>,
    task: JoinHandle<()>,
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pods {
    pub(crate) fn follow(client: &Client, cluster: &str) -> Self {
        let selector = format!("shoal.dev/cluster={cluster},app.kubernetes.io/component=instance");
        let api = Api::<Seen>::namespaced(client.clone(), NAMESPACE);
        let (sender, count) = watch::channel(Count::default());
        let task = tokio::spawn(async move {
            let config = watcher::Config::default().labels(&selector);
            let mut events = pin!(watcher::watcher(api, config).default_backoff());
            let mut known: HashMap<String, bool> = HashMap::new();
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Init) => known.clear(),
                    Ok(Event::InitApply(pod) | Event::Apply(pod)) => {
                        known.insert(pod.metadata.name.clone().unwrap_or_default(), is_ready(&pod));
                    }
                    Ok(Event::Delete(pod)) => {
                        known.remove(&pod.metadata.name.unwrap_or_default());
                    }
                    Ok(Event::InitDone) => {}
                    Err(error) => eprintln!("the watch of pods broke: {error}"),
                }
                let ready = known.values().filter(|ready| **ready).count();
                let _ = sender.send(Count { all: known.len(), ready });
            }
        });
        Self { count, task }
    }

    /// Waits until exactly so many are there, all of them ready.
    pub(crate) async fn are(&self, number: usize) -> Result<()> {
        let mut count = self.count.clone();
        let wanted = Count { all: number, ready: number };
        let reached = tokio::time::timeout(PATIENCE, count.wait_for(|count| *count == wanted)).await;
        let last = *self.count.borrow();
        reached.with_context(|| format!("{last:?} and not {number} pods after {PATIENCE:?}"))??;
        Ok(())
    }
}

fn is_ready(pod: &Seen) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|found| found.type_ == "Ready" && found.status == "True")
}
