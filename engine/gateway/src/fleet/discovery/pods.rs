//! The pods of a cluster, watched at the API server, in the gateway's own namespace only.
//!
//! The API server carries membership alone: role, load and cached pages come from the engines' own streams.
//! While it is away the last view stays in use, and requests go on.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};

use super::{Discovery, Placement, check};
use crate::metrics::Metrics;

/// Port of an engine's gRPC, by its name in the pod.
const PORT: &str = "grpc";
/// The option by which an engine is within TLS. It is read off the pod, whose arguments nobody can change, and not
/// found out by trying.
const TLS: &str = "--tls-dir";

#[derive(Debug, thiserror::Error)]
#[error("--pods needs a cluster's service account or a kubeconfig: {0}")]
pub struct PodsError(#[from] kube::Error);

/// Pods that a selector finds.
pub struct PodDiscovery {
    events: BoxStream<'static, watcher::Result<watcher::Event<Pod>>>,
    store: Store<Pod>,
    metrics: Arc<Metrics>,
    /// The list was read to its end at least once: an earlier view would lack pods.
    whole: bool,
    current: Option<Vec<Placement>>,
}

impl std::fmt::Debug for PodDiscovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodDiscovery").field("current", &self.current).finish_non_exhaustive()
    }
}

impl PodDiscovery {
    /// Reads who it is from its surroundings; does not wait for the API server.
    pub async fn new(selector: &str, metrics: Arc<Metrics>) -> Result<Self, PodsError> {
        let client = Client::try_default().await?;
        let api: Api<Pod> = Api::default_namespaced(client);
        let (store, writer) = reflector::store();
        let events = watcher(api, watcher::Config::default().labels(selector))
            .default_backoff()
            .modify(|pod| {
                pod.managed_fields_mut().clear();
                pod.annotations_mut().clear();
            })
            .reflect(writer);
        Ok(Self { events: events.boxed(), store, metrics, whole: false, current: None })
    }

    /// The view, if it is another one than before.
    fn look(&mut self) -> Option<Vec<Placement>> {
        let mut view: Vec<Placement> = self.store.state().iter().filter_map(|pod| placement(pod)).collect();
        view.sort();
        if self.current.as_ref() == Some(&view) {
            return None;
        }
        if let Err(message) = check(&view) {
            self.metrics.discovery_errors.inc();
            tracing::warn!(message, "the pods are no usable view; the last good one stays in use");
            return None;
        }
        self.current = Some(view.clone());
        Some(view)
    }

    /// True when the store has changed as a whole.
    fn took(&mut self, event: watcher::Result<watcher::Event<Pod>>) -> bool {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => false,
            Ok(watcher::Event::InitDone) => {
                self.whole = true;
                true
            }
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => self.whole,
            Err(error) => {
                self.metrics.discovery_errors.inc();
                tracing::warn!(%error, "the watch of pods broke; the last view stays in use");
                false
            }
        }
    }
}

impl Discovery for PodDiscovery {
    async fn changed(&mut self) -> Vec<Placement> {
        loop {
            let Some(event) = self.events.next().await else {
                // A watch has no end; without one there is nothing more to learn.
                return std::future::pending().await;
            };
            if self.took(event)
                && let Some(view) = self.look()
            {
                return view;
            }
        }
    }
}

/// Where a pod's engine is, once it has listened and as long as nobody has asked it to end. A pod whose node
/// cannot be reached stays: its engine may well serve, and its own stream tells.
fn placement(pod: &Pod) -> Option<Placement> {
    let status = pod.status.as_ref().filter(|_| pod.metadata.deletion_timestamp.is_none())?;
    let engine = pod.spec.as_ref()?.containers.iter().find(|container| port(container).is_some())?;
    let started = |found: &&ContainerStatus| found.name == engine.name && found.started == Some(true);
    status.container_statuses.iter().flatten().find(started)?;
    let ip: std::net::IpAddr = status.pod_ip.as_deref()?.parse().ok()?;
    let grpc = std::net::SocketAddr::new(ip, port(engine)?).to_string();
    let plain = !engine.args.iter().flatten().any(|argument| argument == TLS);
    Some(Placement { name: pod.name_any(), grpc, plain })
}

fn port(container: &k8s_openapi::api::core::v1::Container) -> Option<u16> {
    let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(PORT))?;
    u16::try_from(named.container_port).ok()
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, started: bool) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "team" },
            "spec": { "containers": [{ "name": "engine", "ports": [{ "name": "grpc", "containerPort": 7070 }] }] },
            "status": {
                "phase": "Running",
                "podIP": "10.0.0.7",
                "containerStatuses": [{
                    "name": "engine", "image": "", "imageID": "", "ready": started, "started": started, "restartCount": 0,
                }],
            },
        }))
        .expect("a pod")
    }

    fn discovery(
        events: impl futures::Stream<Item = watcher::Result<watcher::Event<Pod>>> + Send + 'static,
    ) -> PodDiscovery {
        let (store, writer) = reflector::store();
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        PodDiscovery { events: events.reflect(writer).boxed(), store, metrics, whole: false, current: None }
    }

    fn names(view: Vec<Placement>) -> Vec<String> {
        view.into_iter().map(|placement| placement.name).collect()
    }

    #[test]
    fn a_pod_is_a_place_from_its_start_until_it_is_asked_to_end() {
        assert_eq!(placement(&pod("a", false)), None);
        let place = placement(&pod("a", true)).expect("a place");
        assert_eq!((place.name.as_str(), place.grpc.as_str()), ("a", "10.0.0.7:7070"));
        let mut leaving = pod("a", true);
        leaving.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
        assert_eq!(placement(&leaving), None);
        let mut unreachable = pod("a", true);
        let status = unreachable.status.as_mut().expect("a status");
        status.conditions =
            serde_json::from_value(json!([{ "type": "Ready", "status": "Unknown" }])).expect("conditions");
        assert!(placement(&unreachable).is_some(), "its node is silent, it may not be");
    }

    #[test]
    fn an_engine_is_called_as_its_own_arguments_say() {
        let mut started = pod("a", true);
        let set = |pod: &mut Pod, args: &[&str]| {
            let engine = &mut pod.spec.as_mut().expect("a spec").containers[0];
            engine.args = Some(args.iter().map(|&arg| arg.to_owned()).collect());
        };
        assert!(placement(&started).expect("a place").plain, "no arguments");
        set(&mut started, &["--model-name", "--tls-dir-of-somebody"]);
        assert!(placement(&started).expect("a place").plain);
        set(&mut started, &["--tls-dir", "/etc/shoal/tls"]);
        assert!(!placement(&started).expect("a place").plain);
    }

    #[tokio::test]
    async fn views_are_whole_and_the_last_one_outlives_a_broken_watch() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let lost = || Err(watcher::Error::NoResourceVersion);
        let mut source = discovery(stream::iter(vec![
            Ok(Init),
            Ok(InitApply(pod("a", true))),
            Ok(InitApply(pod("b", true))),
            Ok(InitDone),
            lost(),
            // Listed again, half of it, and then the API server goes away.
            Ok(Init),
            Ok(InitApply(pod("a", true))),
            lost(),
            Ok(Init),
            Ok(InitApply(pod("a", true))),
            Ok(InitApply(pod("b", true))),
            Ok(InitDone),
            Ok(Apply(pod("c", false))),
            Ok(Apply(pod("c", true))),
            Ok(Delete(pod("a", true))),
        ]));
        assert_eq!(names(source.changed().await), ["a", "b"]);
        assert_eq!(names(source.changed().await), ["a", "b", "c"], "what stayed the same is no change");
        assert_eq!(names(source.changed().await), ["b", "c"]);
        assert_eq!(source.metrics.discovery_errors.get(), 2);
    }
}
