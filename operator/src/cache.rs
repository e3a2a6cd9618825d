//! Watches: one per kind, limited to what this operator keeps, each feeding a store and the queue.
//!
//! A watch that breaks begins again by itself, with growing pauses; until then its store holds the last view.
//! Everything that is written from such a view is safe to be written late: creations have fixed names,
//! deletions name UID and resource version.

mod pods;

use std::{future::Future, sync::Arc};

use futures::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt as _,
        reflector::{ObjectRef, Store, store},
        watcher,
    },
};
use shoal_crds::{ServingCluster, ServingRole};
use shoal_plan::Role as PlannedRole;

use crate::{
    children::Child,
    fleet::Fleet,
    labels,
    metrics::Metrics,
    names::ObjectName,
    observe::{SeenPod, WatchedPod},
};
use pods::Pods;

/// A cluster that may not be readable: one broken object must not stop the watch of all others.
pub type Watched = DeserializeGuard<ServingCluster>;
/// What happened to which cluster.
pub type Triggers = BoxStream<'static, ObjectRef<Watched>>;

/// Which namespaces are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    All,
    One(String),
}

impl Scope {
    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match self {
            Self::All => Api::all(client.clone()),
            Self::One(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// The last view of every kind.
#[derive(Debug, Clone)]
pub struct Cache {
    pub clusters: Store<Watched>,
    pods: Pods,
    serving_roles: Store<ServingRole>,
    accounts: Store<ServiceAccount>,
    roles: Store<Role>,
    bindings: Store<RoleBinding>,
    policies: Store<NetworkPolicy>,
    services: Store<Service>,
    budgets: Store<PodDisruptionBudget>,
    deployments: Store<Deployment>,
}

/// The children of one cluster as they were last seen, whoever controls them.
#[derive(Debug, Default)]
pub struct Live {
    pub prefill_role: Option<Arc<ServingRole>>,
    pub decode_role: Option<Arc<ServingRole>>,
    pub account: Option<Arc<ServiceAccount>>,
    pub role: Option<Arc<Role>>,
    pub binding: Option<Arc<RoleBinding>>,
    pub instances_policy: Option<Arc<NetworkPolicy>>,
    pub gateway_policy: Option<Arc<NetworkPolicy>>,
    pub instances_service: Option<Arc<Service>>,
    pub gateway_service: Option<Arc<Service>>,
    pub budget: Option<Arc<PodDisruptionBudget>>,
    pub gateway: Option<Arc<Deployment>>,
}

impl Live {
    pub fn role(&self, role: PlannedRole) -> Option<&ServingRole> {
        match role {
            PlannedRole::Prefill => self.prefill_role.as_deref(),
            PlannedRole::Decode => self.decode_role.as_deref(),
        }
    }
}

impl Cache {
    /// Begins every watch. The streams have to be read for the stores to fill.
    pub fn watch(client: &Client, scope: &Scope, metrics: &Arc<Metrics>) -> (Self, Triggers) {
        let mut triggers: Vec<Triggers> = Vec::new();
        let cache = Self {
            clusters: clusters(client, scope, metrics, &mut triggers),
            pods: pods(client, scope, metrics, &mut triggers),
            serving_roles: children(client, scope, metrics, &mut triggers),
            accounts: children(client, scope, metrics, &mut triggers),
            roles: children(client, scope, metrics, &mut triggers),
            bindings: children(client, scope, metrics, &mut triggers),
            policies: children(client, scope, metrics, &mut triggers),
            services: children(client, scope, metrics, &mut triggers),
            budgets: children(client, scope, metrics, &mut triggers),
            deployments: children(client, scope, metrics, &mut triggers),
        };
        (cache, futures::stream::select_all(triggers).boxed())
    }

    /// Waits until every store holds a whole view: half a view would look like objects that are missing.
    pub async fn filled(&self) -> bool {
        let Self {
            clusters,
            pods,
            serving_roles,
            accounts,
            roles,
            bindings,
            policies,
            services,
            budgets,
            deployments,
        } = self;
        let others = async {
            tokio::try_join!(
                clusters.wait_until_ready(),
                serving_roles.wait_until_ready(),
                accounts.wait_until_ready(),
                roles.wait_until_ready(),
                bindings.wait_until_ready(),
                policies.wait_until_ready(),
                services.wait_until_ready(),
                budgets.wait_until_ready(),
                deployments.wait_until_ready(),
            )
        };
        tokio::join!(others, pods.filled()).0.is_ok()
    }

    /// Pods that carry the cluster's label, in its namespace, by name.
    pub fn pods_of(&self, fleet: &Fleet) -> Vec<SeenPod> {
        self.pods.of(&ObjectRef::new(fleet.name()).within(&fleet.namespace))
    }

    /// Waits until each of these pods of a cluster is seen as something else than under that resource version.
    pub fn moved_on<'a>(
        &'a self,
        cluster: &'a ObjectRef<Watched>,
        pods: &'a [(String, Option<String>)],
    ) -> impl Future<Output = ()> + Send + 'a {
        let other = |now: &Pods| pods.iter().all(|(name, version)| now.version(cluster, name) != *version);
        self.pods.until(other)
    }

    pub fn live(&self, fleet: &Fleet) -> Live {
        let (gateway, instances) = (fleet.names().gateway(), fleet.names().instances());
        let role = |role| get(&self.serving_roles, fleet, &fleet.names().role(role));
        Live {
            prefill_role: role(PlannedRole::Prefill),
            decode_role: role(PlannedRole::Decode),
            account: get(&self.accounts, fleet, &gateway),
            role: get(&self.roles, fleet, &gateway),
            binding: get(&self.bindings, fleet, &gateway),
            instances_policy: get(&self.policies, fleet, &instances),
            gateway_policy: get(&self.policies, fleet, &gateway),
            instances_service: get(&self.services, fleet, &instances),
            gateway_service: get(&self.services, fleet, &gateway),
            budget: get(&self.budgets, fleet, &gateway),
            gateway: get(&self.deployments, fleet, &gateway),
        }
    }

    /// For tests: a view without any watch.
    #[cfg(test)]
    pub(crate) fn of(
        pods: Vec<k8s_openapi::api::core::v1::Pod>,
        children: Option<&crate::children::Children<crate::children::Prepared>>,
    ) -> Self {
        let view = Pods::new();
        view.note(watcher::Event::Init);
        for pod in pods {
            view.note(watcher::Event::InitApply(pod.into()));
        }
        view.note(watcher::Event::InitDone);
        Self {
            clusters: store().0,
            pods: view,
            serving_roles: filled(
                children.into_iter().flat_map(|all| [all.prefill_role.clone(), all.decode_role.clone()]),
            ),
            accounts: filled(children.map(|all| all.account.clone())),
            roles: filled(children.map(|all| all.role.clone())),
            bindings: filled(children.map(|all| all.binding.clone())),
            policies: filled(
                children
                    .into_iter()
                    .flat_map(|all| [all.instances_policy.clone(), all.gateway_policy.clone()]),
            ),
            services: filled(
                children
                    .into_iter()
                    .flat_map(|all| [all.instances_service.clone(), all.gateway_service.clone()]),
            ),
            budgets: filled(children.map(|all| all.budget.clone())),
            deployments: filled(children.map(|all| all.gateway.clone())),
        }
    }
}

#[cfg(test)]
fn filled<K: Child>(objects: impl IntoIterator<Item = K>) -> Store<K> {
    let (reader, mut writer) = store();
    writer.apply_watcher_event(&watcher::Event::Init);
    for object in objects {
        writer.apply_watcher_event(&watcher::Event::InitApply(object));
    }
    writer.apply_watcher_event(&watcher::Event::InitDone);
    reader
}

fn get<K: Child>(from: &Store<K>, fleet: &Fleet, name: &ObjectName) -> Option<Arc<K>> {
    from.get(&ObjectRef::new(name.as_str()).within(&fleet.namespace))
}

#[cfg(test)]
impl Cache {
    /// The same view without the ServingRole of that role.
    pub(crate) fn without_role(self, role: PlannedRole) -> Self {
        let others = self.serving_roles.state().into_iter().map(Arc::unwrap_or_clone);
        let named = format!("-{role}");
        let others =
            others.filter(|found| found.metadata.name.as_ref().is_some_and(|name| !name.ends_with(&named)));
        Self { serving_roles: filled(others), ..self }
    }
}

fn clusters(
    client: &Client,
    scope: &Scope,
    metrics: &Arc<Metrics>,
    triggers: &mut Vec<Triggers>,
) -> Store<Watched> {
    let (reader, writer) = store();
    let stream = watcher(scope.api::<Watched>(client), watcher::Config::default())
        .default_backoff()
        .modify(|cluster| cluster.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects();
    let own = |cluster: Watched| Some(ObjectRef::from_obj(&cluster));
    triggers.push(triggered(stream, own, "ServingCluster", metrics));
    reader
}

fn children<K: Child>(
    client: &Client,
    scope: &Scope,
    metrics: &Arc<Metrics>,
    triggers: &mut Vec<Triggers>,
) -> Store<K> {
    let (reader, writer) = store();
    let stream = watcher(scope.api::<K>(client), watcher::Config::default().labels(&labels::managed()))
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects();
    triggers.push(triggered(stream, |object: K| cluster_of(&object), K::KIND, metrics));
    reader
}

fn pods(client: &Client, scope: &Scope, metrics: &Arc<Metrics>, triggers: &mut Vec<Triggers>) -> Pods {
    let index = Pods::new();
    let noted = index.clone();
    let stream =
        watcher(scope.api::<WatchedPod>(client), watcher::Config::default().labels(&labels::managed()))
            .default_backoff();
    triggers.push(triggered(stream, move |event| noted.note(event), "Pod", metrics));
    index
}

/// The clusters that a stream's objects belong to. A broken watch is counted, and tried again beneath.
fn triggered<K: Send + 'static>(
    stream: impl futures::Stream<Item = watcher::Result<K>> + Send + 'static,
    cluster: impl Fn(K) -> Option<ObjectRef<Watched>> + Send + Sync + 'static,
    kind: &'static str,
    metrics: &Arc<Metrics>,
) -> Triggers {
    let metrics = Arc::clone(metrics);
    stream
        .filter_map(move |found| {
            let reference = match found {
                Ok(object) => cluster(object),
                Err(error) => {
                    metrics.watch_broke(kind);
                    tracing::warn!(kind, %error, "a watch broke; the last view stays in use");
                    None
                }
            };
            std::future::ready(reference)
        })
        .boxed()
}

/// By label, because a gateway's pods are owned by what the Deployment makes.
fn cluster_of<K: Resource>(object: &K) -> Option<ObjectRef<Watched>> {
    let name = cluster_label(object)?;
    Some(ObjectRef::new(name).within(object.meta().namespace.as_deref()?))
}

fn cluster_label<K: Resource>(object: &K) -> Option<&str> {
    object.meta().labels.as_ref()?.get(labels::CLUSTER).map(String::as_str)
}
