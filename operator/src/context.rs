//! What every reconcile shares. Nothing here is truth: all of it is built again by looking.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::SignedDuration;
use kube::{
    Client,
    runtime::{
        events::{Recorder, Reporter},
        reflector::ObjectRef,
    },
};
use parking_lot::Mutex;
use shoal_crds::{ServingCluster, ServingClusterStatus};

use crate::{
    actuate::Engines,
    cache::{Cache, Watched},
    certificates::Identities,
    error::Class,
    fleet::Surroundings,
    labels::MANAGER,
    lease::Leadership,
    metrics::Metrics,
    secrets::Secrets,
};

/// Look again soon, not at once: the cache has to catch up with what the API server refused.
const CONFLICT: Duration = Duration::from_millis(200);

pub struct Context {
    pub client: Client,
    pub cache: Cache,
    pub engines: Engines,
    pub secrets: Secrets,
    pub identities: Identities,
    pub recorder: Recorder,
    pub surroundings: Surroundings,
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
    failures: Failures,
    published: Mutex<HashMap<String, Published>>,
    waiting: Mutex<HashSet<ObjectRef<Watched>>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("surroundings", &self.surroundings).finish_non_exhaustive()
    }
}

/// A status that was written over an object as the cache has it.
#[derive(Debug, Clone, PartialEq)]
struct Published {
    over: Option<String>,
    status: ServingClusterStatus,
}

/// Failures in a row, by object.
#[derive(Debug, Default)]
struct Failures(Mutex<HashMap<ObjectRef<Watched>, u32>>);

impl Context {
    pub fn new(
        client: Client,
        cache: Cache,
        surroundings: Surroundings,
        leadership: Leadership,
        metrics: Arc<Metrics>,
        identity: &str,
    ) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            engines: Engines::new(Arc::clone(&metrics)),
            secrets: Secrets::default(),
            identities: Identities::new(Arc::clone(&metrics)),
            failures: Failures::default(),
            published: Mutex::default(),
            waiting: Mutex::default(),
            client,
            cache,
            surroundings,
            leadership,
            metrics,
        }
    }

    /// Whether this status was written already over this very object, so that only the cache is behind.
    pub fn is_published(&self, cluster: &ServingCluster, status: &ServingClusterStatus) -> bool {
        let published = self.published.lock();
        let known = cluster.metadata.uid.as_ref().and_then(|uid| published.get(uid));
        known.is_some_and(|known| known.over == cluster.metadata.resource_version && known.status == *status)
    }

    pub fn published(&self, cluster: &ServingCluster, status: &ServingClusterStatus) {
        let uid = cluster.metadata.uid.clone().unwrap_or_default();
        let over = cluster.metadata.resource_version.clone();
        self.published.lock().insert(uid, Published { over, status: status.clone() });
    }

    /// Something happened to an object.
    pub fn queued(&self, reference: &ObjectRef<Watched>) {
        let mut waiting = self.waiting.lock();
        waiting.insert(reference.clone());
        self.metrics.queue_depth.set(waiting.len() as i64);
    }

    /// A look at it begins.
    pub fn taken(&self, reference: &ObjectRef<Watched>) {
        let mut waiting = self.waiting.lock();
        waiting.remove(reference);
        self.metrics.queue_depth.set(waiting.len() as i64);
    }

    pub fn succeeded(&self, reference: &ObjectRef<Watched>) {
        self.failures.0.lock().remove(reference);
    }

    /// When to try again after a failure of that class; never by itself, if only a change can help.
    pub fn retry_after(&self, reference: &ObjectRef<Watched>, class: Class) -> Option<Duration> {
        match class {
            Class::Invalid | Class::Fatal => None,
            Class::Conflict => Some(CONFLICT),
            Class::Transient => {
                let mut failures = self.failures.0.lock();
                let count = failures.entry(reference.clone()).or_insert(0);
                *count = count.saturating_add(1);
                Some(pause(reference, *count))
            }
        }
    }

    /// The object is gone, and what was remembered of it goes too.
    pub fn forget(&self, reference: &ObjectRef<Watched>) {
        self.taken(reference);
        self.succeeded(reference);
        let clusters = self.cache.clusters.state();
        let alive: HashSet<&str> = clusters
            .iter()
            .filter_map(|cluster| kube::Resource::meta(cluster.as_ref()).uid.as_deref())
            .collect();
        self.secrets.keep(|uid| alive.contains(uid));
        self.identities.keep(|uid| alive.contains(uid));
        self.published.lock().retain(|uid, _| alive.contains(uid.as_str()));
        self.engines.keep(&self.cache.pod_uids());
    }
}

/// One second, doubling to five minutes, less up to a quarter that differs between objects and attempts, so
/// that objects which failed together do not come back together.
fn pause(reference: &ObjectRef<Watched>, count: u32) -> Duration {
    let pause: SignedDuration = shoal_plan::delay(&reference.to_string(), count);
    Duration::try_from(pause).unwrap_or(Duration::from_secs(1))
}
