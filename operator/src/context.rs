//! What every reconcile shares. Nothing here is truth: all of it is built again by looking.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::SignedDuration;
use kube::{
    Client, Resource as _,
    core::ObjectMeta,
    runtime::{
        events::{Recorder, Reporter},
        reflector::ObjectRef,
    },
};
use parking_lot::Mutex;
use serde::Serialize;
use shoal_crds::ServingCluster;

use crate::{
    actuate::Engines,
    cache::{Cache, Watched},
    certificates::Identities,
    error::Class,
    fleet::{Fleet, Surroundings},
    labels::MANAGER,
    lease::Leadership,
    metrics::{Metrics, SHOWN, ShownCertificate, ShownCluster},
    secrets::Secrets,
    status,
    validate::{self, ValidateError},
};

/// Look again soon, not at once: the cache has to catch up with what the API server refused.
const CONFLICT: Duration = Duration::from_millis(200);
/// While only numbers change in a status it is written this often, for example while many pods come up.
const STATUS_PACE: Duration = Duration::from_secs(1);

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
    written: Mutex<HashMap<ObjectRef<Watched>, Vec<Written>>>,
    /// Generation of each cluster whose rules were checked last, by UID.
    checked: Mutex<HashMap<String, i64>>,
}

/// A pod that was written, and the resource version under which it had been seen before, if it had.
type Written = (String, Option<String>);

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("surroundings", &self.surroundings).finish_non_exhaustive()
    }
}

/// A status that was written over an object as the cache has it.
#[derive(Debug, Clone)]
struct Published {
    over: Option<String>,
    status: String,
    at: Instant,
}

impl Published {
    fn over(meta: &ObjectMeta, status: &impl Serialize) -> Self {
        // What cannot be written as JSON could not be published either.
        let status = serde_json::to_string(status).unwrap_or_default();
        Self { over: meta.resource_version.clone(), status, at: Instant::now() }
    }
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
            identities: Identities::default(),
            failures: Failures::default(),
            published: Mutex::default(),
            waiting: Mutex::default(),
            written: Mutex::default(),
            checked: Mutex::default(),
            client,
            cache,
            surroundings,
            leadership,
            metrics,
        }
    }

    /// Whether this status was written already over this very object, so that only the cache is behind.
    pub fn is_published(&self, meta: &ObjectMeta, status: &impl Serialize) -> bool {
        let published = self.published.lock();
        let known = meta.uid.as_ref().and_then(|uid| published.get(uid));
        known.is_some_and(|known| {
            let now = Published::over(meta, status);
            (&known.over, &known.status) == (&now.over, &now.status)
        })
    }

    pub fn published(&self, meta: &ObjectMeta, status: &impl Serialize) {
        let uid = meta.uid.clone().unwrap_or_default();
        self.published.lock().insert(uid, Published::over(meta, status));
    }

    /// How long a status is held back that tells of the same state as the last one, with other numbers.
    pub fn holds_back(&self, meta: &ObjectMeta, status: &impl Serialize) -> Option<Duration> {
        let published = self.published.lock();
        let last = published.get(meta.uid.as_ref()?)?;
        let left = STATUS_PACE.checked_sub(last.at.elapsed())?;
        let before = serde_json::from_str(&last.status).ok()?;
        let now = serde_json::to_value(status).ok()?;
        (!status::is_edge(&before, &now)).then_some(left)
    }

    /// A pod of this cluster was written, which had been seen under this resource version.
    pub fn wrote(&self, fleet: &Fleet, pod: &str, version: Option<&str>) {
        let cluster = ObjectRef::new(fleet.name()).within(&fleet.namespace);
        let written = (pod.to_owned(), version.map(ToOwned::to_owned));
        self.written.lock().entry(cluster).or_default().push(written);
    }

    /// Waits until the cache shows what was written since this was last asked. It need not: what is written
    /// twice is harmless, and costs calls.
    pub async fn caught_up(&self, cluster: &ObjectRef<Watched>) {
        let written = self.written.lock().remove(cluster);
        if let Some(written) = written {
            self.cache.moved_on(cluster, &written).await;
        }
    }

    /// The fleet that the cluster asks for; each generation's rules are checked once.
    pub fn validate(&self, cluster: &ServingCluster) -> Result<Fleet, ValidateError> {
        let (uid, generation) = (&cluster.metadata.uid, cluster.metadata.generation);
        let known = uid.as_ref().and_then(|uid| self.checked.lock().get(uid).copied());
        if known.is_none() || known != generation {
            validate::check(cluster)?;
            let checked = uid.clone().zip(generation);
            self.checked.lock().extend(checked);
        }
        validate::fleet(cluster, &self.surroundings)
    }

    /// Every cluster as the page of metrics shows it; of one that cannot be read no condition holds.
    pub fn shown(&self) -> Vec<ShownCluster> {
        self.cache.clusters.state().iter().map(|watched| self.shown_one(watched)).collect()
    }

    fn shown_one(&self, watched: &Watched) -> ShownCluster {
        let meta = watched.meta();
        let status = watched.0.as_ref().ok().and_then(|cluster| cluster.status.as_ref());
        let uid = meta.uid.as_deref().unwrap_or_default();
        let certificate = self.identities.leaf(uid).map(|leaf| ShownCertificate {
            renewal: shoal_plan::renewal(&leaf, uid).as_second(),
            ends: leaf.ends.as_second(),
        });
        ShownCluster {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            holding: SHOWN.into_iter().filter(|kind| status.is_some_and(|status| status.is(kind))).collect(),
            certificate,
        }
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
        let alive: HashSet<&str> =
            clusters.iter().filter_map(|cluster| cluster.meta().uid.as_deref()).collect();
        self.secrets.keep(|uid| alive.contains(uid));
        self.identities.keep(|uid| alive.contains(uid));
        self.published.lock().retain(|uid, _| alive.contains(uid.as_str()));
        self.engines.keep(|uid| alive.contains(uid));
        self.written.lock().remove(reference);
        self.checked.lock().retain(|uid, _| alive.contains(uid.as_str()));
    }
}

/// One second, doubling to five minutes, less up to a quarter that differs between objects and attempts, so
/// that objects which failed together do not come back together.
fn pause(reference: &ObjectRef<Watched>, count: u32) -> Duration {
    let pause: SignedDuration = shoal_plan::delay(&reference.to_string(), count);
    Duration::try_from(pause).unwrap_or(Duration::from_secs(1))
}
