//! The yardstick: a client that creates and deletes pods over sixteen connections and knows nothing else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};

use crate::{NAMESPACE, pods::Pods};

const CONNECTIONS: usize = 16;
/// Label value in the place of a cluster's name.
pub(crate) const NAME: &str = "bare";

pub(crate) struct Bare {
    /// Each with a connection of its own, because it makes one call at a time.
    clients: Vec<Client>,
    template: Pod,
    pods: Pods,
}

impl Bare {
    /// `like` is a pod that the operator made: the same spec is created here, under other names.
    pub(crate) async fn new(like: &Pod) -> Result<Self> {
        let clients = try_join_all((0..CONNECTIONS).map(|_| Client::try_default())).await?;
        let pods = Pods::follow(&clients[0], NAME);
        Ok(Self { clients, template: template(like)?, pods })
    }

    /// Creates the pods of these numbers; until all are ready.
    pub(crate) async fn grow(&self, from: usize, to: usize) -> Result<Duration> {
        let begun = Instant::now();
        self.each(from, to, async |api, name| {
            let mut pod = self.template.clone();
            pod.metadata.name = Some(name);
            api.create(&PostParams::default(), &pod).await.map(drop)
        })
        .await?;
        self.pods.are(to).await?;
        Ok(begun.elapsed())
    }

    /// Deletes them; until they are gone.
    pub(crate) async fn shrink(&self, from: usize, to: usize) -> Result<Duration> {
        let begun = Instant::now();
        let params = DeleteParams::default();
        self.each(to, from, async |api, name| api.delete(&name, &params).await.map(drop)).await?;
        self.pods.are(to).await?;
        Ok(begun.elapsed())
    }

    async fn each(
        &self,
        from: usize,
        to: usize,
        call: impl AsyncFn(&Api<Pod>, String) -> kube::Result<()>,
    ) -> Result<()> {
        let call = &call;
        let lanes = self.clients.iter().enumerate().map(|(lane, client)| async move {
            let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
            for number in (from..to).skip(lane).step_by(CONNECTIONS) {
                call(&api, format!("{NAME}-{number}-1")).await?;
            }
            Ok::<_, kube::Error>(())
        });
        try_join_all(lanes).await?;
        Ok(())
    }
}

/// What an operator's pod was created from, without what the API server and the scheduler added, and not the
/// operator's any more.
fn template(like: &Pod) -> Result<Pod> {
    let mut pod = Pod { metadata: kube::api::ObjectMeta::default(), spec: like.spec.clone(), status: None };
    let spec = pod.spec.as_mut().context("a pod has a spec")?;
    spec.node_name = None;
    spec.tolerations = None;
    spec.priority = None;
    let mut labels = like.metadata.labels.clone().unwrap_or_default();
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "bench".to_owned());
    labels.insert("shoal.dev/cluster".to_owned(), NAME.to_owned());
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        let selected = constraint.label_selector.as_mut().and_then(|selector| selector.match_labels.as_mut());
        if let Some(selected) = selected {
            selected.insert("shoal.dev/cluster".to_owned(), NAME.to_owned());
        }
    }
    pod.metadata.labels = Some(labels);
    pod.metadata.annotations.clone_from(&like.metadata.annotations);
    Ok(pod)
}

/// An instance's pod that the operator made.
pub(crate) async fn example(client: &Client, cluster: &str) -> Result<Pod> {
    let selector = format!("shoal.dev/cluster={cluster},app.kubernetes.io/component=instance");
    let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let found = api.list(&ListParams::default().labels(&selector)).await?;
    found.items.into_iter().next().context("the operator made no pod")
}
