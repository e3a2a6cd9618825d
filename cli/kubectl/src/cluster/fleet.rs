//! The objects of one ServingCluster.

use std::{collections::BTreeMap, fmt::Debug};

use futures::{StreamExt as _, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Event, Pod, Service},
};
use kube::{Api, Resource, ResourceExt as _, api::ListParams};
use serde::de::DeserializeOwned;
use shoal_crds::{ServingCluster, labels};
use shoal_terminal::failure::Failure;

use super::{Connection, Exposition, Unseen, engine_metrics, events, gateway_metrics, pages, words};

/// Calls at the same time.
const TOGETHER: usize = 8;

/// What is worth a call beyond the pods.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    pub(crate) figures: bool,
    pub(crate) events: bool,
}

/// As far as it could be seen.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) cluster: ServingCluster,
    /// Of instances and gateways, by name.
    pub(crate) pods: Vec<Pod>,
    /// Oldest first.
    pub(crate) events: Vec<Event>,
    /// What pods count, by name of the pod.
    pub(crate) figures: BTreeMap<String, Exposition>,
    pub(crate) unseen: Unseen,
}

impl Fleet {
    pub(crate) async fn read(connection: &Connection, cluster: ServingCluster, wanted: Wanted) -> Self {
        let namespace = cluster.namespace().unwrap_or_default();
        let mut unseen = Unseen::default();
        let mut pods: Vec<Pod> = connection.of_cluster("pods", &cluster, &mut unseen).await;
        pods.sort_by_key(kube::ResourceExt::name_any);
        let events = if wanted.events {
            let api = Api::namespaced(connection.client.clone(), &namespace);
            events(&api, &namespace, &cluster.name_any(), &mut unseen).await
        } else {
            Vec::new()
        };
        let mut fleet = Self { cluster, pods, events, figures: BTreeMap::new(), unseen };
        if wanted.figures {
            fleet.ask(connection).await;
        }
        fleet
    }

    /// Asks every pod that runs for what it counts.
    async fn ask(&mut self, connection: &Connection) {
        let running = self.pods.iter().filter(|pod| is_running(pod));
        let answers = running.map(|pod| {
            let (name, gateway) = (pod.name_any(), component(pod) == Some(labels::GATEWAY_COMPONENT));
            async move {
                let answer = if gateway {
                    gateway_metrics(connection, pod).await
                } else {
                    engine_metrics(connection, pod).await
                };
                (name, answer)
            }
        });
        let answers: Vec<_> = stream::iter(answers).buffer_unordered(TOGETHER).collect().await;
        for (name, answer) in answers {
            match answer {
                Ok(text) => {
                    self.figures.insert(name, Exposition::read(&text));
                }
                Err(why) => self.unseen.say(why),
            }
        }
    }
}

/// Its program runs now; while a crashed one waits, the pod itself still counts as running.
fn is_running(pod: &Pod) -> bool {
    let mut statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.any(|found| found.state.as_ref().is_some_and(|state| state.running.is_some()))
}

pub(crate) fn component(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(labels::COMPONENT).map(String::as_str)
}

impl Connection {
    /// Objects of a kind that carry the cluster's label.
    pub(crate) async fn of_cluster<K>(
        &self,
        resource: &str,
        cluster: &ServingCluster,
        unseen: &mut Unseen,
    ) -> Vec<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let namespace = cluster.namespace().unwrap_or_default();
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let selector = format!("{}={}", labels::CLUSTER, cluster.name_any());
        let place = format!(" in namespace {namespace}");
        unseen.look("list", resource, &place, pages(&api, ListParams::default().labels(&selector))).await
    }

    /// The Service that clients call: the one with an address.
    pub(crate) async fn gateway_service(
        &self,
        cluster: &ServingCluster,
        unseen: &mut Unseen,
    ) -> Option<Service> {
        let services: Vec<Service> = self.of_cluster("services", cluster, unseen).await;
        let addressed = |service: &Service| {
            service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() != Some("None"))
        };
        services.into_iter().find(addressed)
    }
}

/// Clusters of the namespace, or of all.
pub(crate) async fn clusters(
    connection: &Connection,
    everywhere: bool,
) -> Result<Vec<ServingCluster>, Failure> {
    let (client, namespace) = (connection.client.clone(), &connection.namespace);
    let api = if everywhere { Api::all(client) } else { Api::namespaced(client, namespace) };
    let listed = tokio::time::timeout(super::unseen::PATIENCE, pages(&api, ListParams::default())).await;
    match listed {
        Ok(Ok(mut found)) => {
            found.sort_by_key(|cluster: &ServingCluster| (cluster.namespace(), cluster.name_any()));
            Ok(found)
        }
        Ok(Err(error)) => Err(unlisted(&error)),
        Err(_) => Err(Failure::not_found("the API server does not answer")),
    }
}

fn unlisted(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 404 => Failure::not_found(
            "this cluster has no ServingClusters: their CustomResourceDefinition is not installed (helm install shoal)",
        ),
        error => Failure::not_found(words(error)),
    }
}

/// The cluster of that name; without a name the only one of the namespace.
pub(crate) async fn named(connection: &Connection, name: Option<&str>) -> Result<ServingCluster, Failure> {
    let namespace = &connection.namespace;
    if let Some(name) = name {
        let api: Api<ServingCluster> = Api::namespaced(connection.client.clone(), namespace);
        return api.get(name).await.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 404 && status.reason == "NotFound" => {
                Failure::not_found(format!("there is no ServingCluster {name:?} in namespace {namespace}"))
            }
            error => unlisted(error),
        });
    }
    let mut found = clusters(connection, false).await?;
    match (found.pop(), found.as_slice()) {
        (None, _) => Err(Failure::not_found(format!("there is no ServingCluster in namespace {namespace}"))),
        (Some(only), []) => Ok(only),
        (Some(last), others) => {
            let names: Vec<String> = others.iter().chain([&last]).map(kube::ResourceExt::name_any).collect();
            Err(Failure::invalid(format!(
                "namespace {namespace} has several ServingClusters, name one: {}",
                names.join(", ")
            )))
        }
    }
}
