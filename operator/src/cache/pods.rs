//! Pods by cluster. Each is read once, when it changed, and only what `observe` needs of it is kept: a look costs
//! as much as its own cluster has pods, whatever others have.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kube::runtime::{reflector::ObjectRef, watcher::Event};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Watched, cluster_of};
use crate::observe::{SeenPod, WatchedPod};

/// The last view. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Pods {
    view: Arc<RwLock<View>>,
    /// Events since the first whole view; 0 before it.
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct View {
    current: Index,
    /// The view that a list is about to replace it with.
    listed: Index,
}

/// A pod's place: namespace and name.
type Place = (String, String);

#[derive(Debug, Default)]
struct Index {
    clusters: HashMap<ObjectRef<Watched>, BTreeMap<String, SeenPod>>,
    /// Under which cluster a pod is: its label may change.
    homes: HashMap<Place, ObjectRef<Watched>>,
}

impl Index {
    fn put(&mut self, pod: &WatchedPod, cluster: Option<&ObjectRef<Watched>>) {
        self.remove(pod);
        if let (Some(cluster), Some(seen)) = (cluster, SeenPod::of(pod)) {
            let (namespace, name) = place(pod);
            self.clusters.entry(cluster.clone()).or_default().insert(name.clone(), seen);
            self.homes.insert((namespace, name), cluster.clone());
        }
    }

    fn remove(&mut self, pod: &WatchedPod) {
        let place = place(pod);
        let Some(home) = self.homes.remove(&place) else { return };
        let Some(pods) = self.clusters.get_mut(&home) else { return };
        pods.remove(&place.1);
        if pods.is_empty() {
            self.clusters.remove(&home);
        }
    }
}

fn place(pod: &WatchedPod) -> Place {
    let meta = &pod.metadata;
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

impl Pods {
    pub(super) fn new() -> Self {
        Self { view: Arc::default(), revision: watch::Sender::new(0) }
    }

    /// Takes in what a watch says; the cluster that it is about.
    pub(super) fn note(&self, event: Event<WatchedPod>) -> Option<ObjectRef<Watched>> {
        let mut view = self.view.write();
        let touched = match event {
            Event::Init => {
                view.listed = Index::default();
                return None;
            }
            Event::InitApply(pod) => {
                let cluster = cluster_of(&pod);
                view.listed.put(&pod, cluster.as_ref());
                return cluster;
            }
            Event::InitDone => {
                view.current = std::mem::take(&mut view.listed);
                None
            }
            Event::Apply(pod) => {
                let cluster = cluster_of(&pod);
                view.current.put(&pod, cluster.as_ref());
                cluster
            }
            Event::Delete(pod) => {
                view.current.remove(&pod);
                cluster_of(&pod)
            }
        };
        drop(view);
        self.revision.send_modify(|revision| *revision += 1);
        touched
    }

    /// Waits for the first whole view.
    pub(super) async fn filled(&self) {
        self.until(|_| true).await;
    }

    /// Waits until the view, whole, is as `holds` says; it is asked again after each event.
    pub(super) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        // The sender lives as long as this does.
        let _ = self.revision.subscribe().wait_for(|revision| *revision > 0 && holds(self)).await;
    }

    pub(super) fn of(&self, cluster: &ObjectRef<Watched>) -> Vec<SeenPod> {
        let view = self.view.read();
        view.current.clusters.get(cluster).map(|pods| pods.values().cloned().collect()).unwrap_or_default()
    }

    /// The resource version under which a pod was last seen.
    pub(super) fn version(&self, cluster: &ObjectRef<Watched>, name: &str) -> Option<String> {
        let view = self.view.read();
        view.current.clusters.get(cluster)?.get(name)?.version().map(ToOwned::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use shoal_plan::Role;

    use super::*;
    use crate::children::tests::{fleet, pod};

    fn watched(name: &str) -> WatchedPod {
        WatchedPod::from(pod(&fleet(), name, 1, Role::Decode))
    }

    fn chat() -> ObjectRef<Watched> {
        ObjectRef::new("chat").within("team")
    }

    fn filled(pods: &[&str]) -> Pods {
        let index = Pods::new();
        index.note(Event::Init);
        for name in pods {
            index.note(Event::InitApply(watched(name)));
        }
        index.note(Event::InitDone);
        index
    }

    #[test]
    fn a_list_replaces_the_view_as_a_whole_and_not_before_its_end() {
        let pods = filled(&["chat-0", "chat-1"]);
        pods.note(Event::Init);
        pods.note(Event::InitApply(watched("chat-2")));
        assert_eq!(pods.of(&chat()).len(), 2);
        pods.note(Event::InitDone);
        assert_eq!(pods.of(&chat()).len(), 1);
        assert_eq!(pods.note(Event::Delete(watched("chat-2"))), Some(chat()));
        assert!(pods.of(&chat()).is_empty() && pods.view.read().current.homes.is_empty());
    }

    #[test]
    fn a_pod_whose_label_names_another_cluster_is_there_and_nowhere_else() {
        let pods = filled(&["chat-0"]);
        let mut moved: Pod = pod(&fleet(), "chat-0", 1, Role::Decode);
        moved.metadata.labels.as_mut().unwrap().insert(crate::labels::CLUSTER.to_owned(), "talk".to_owned());
        pods.note(Event::Apply(WatchedPod::from(moved)));
        assert!(pods.of(&chat()).is_empty());
        assert_eq!(pods.of(&ObjectRef::new("talk").within("team")).len(), 1);
    }

    #[tokio::test]
    async fn who_waits_for_an_event_goes_on_when_it_has_come() {
        let pods = Pods::new();
        let waiting = pods.clone();
        let seen = tokio::spawn(async move { waiting.until(|pods| !pods.of(&chat()).is_empty()).await });
        pods.note(Event::Init);
        pods.note(Event::InitDone);
        pods.note(Event::Apply(watched("chat-0")));
        seen.await.unwrap();
    }
}
