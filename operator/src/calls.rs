//! The way to the API server: each call of a reconcile has a timeout and is counted, and no write is sent by
//! a process that does not hold the lease at that moment.

use std::{
    fmt::Debug,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{children::Child, error::CallError, labels::MANAGER, lease::Leadership, metrics::Metrics};

/// Longer than a slow API server needs, shorter than the part of the lease that is left when writing stops:
/// a write that was sent ends before somebody else can lead.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The calls of one reconcile.
pub struct Calls {
    client: Client,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    count: AtomicU32,
}

impl Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Which object exactly, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
}

impl Identity {
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
        }
    }
}

impl Calls {
    pub fn new(client: Client, leadership: Leadership, metrics: Arc<Metrics>) -> Self {
        Self { client, leadership, metrics, count: AtomicU32::new(0) }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// The epoch under which this process leads, for engines.
    pub fn epoch(&self) -> Result<u64, CallError> {
        self.leadership.epoch().ok_or(CallError::NotLeader)
    }

    /// The object as the API server has it now, not as a cache had it.
    pub async fn get<K: Child>(&self, namespace: &str, name: &str) -> Result<Option<K>, CallError> {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        self.get_by(&api, K::KIND, name).await
    }

    pub async fn get_by<K>(
        &self,
        api: &Api<K>,
        kind: &'static str,
        name: &str,
    ) -> Result<Option<K>, CallError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let found = self.call("get", kind, api.get_opt(name)).await;
        self.metrics.read(kind, found.as_ref().map_or_else(CallError::outcome, |_| "ok"));
        found
    }

    pub async fn create<K: Child>(&self, namespace: &str, object: &K) -> Result<K, CallError> {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        self.write("create", K::KIND, api.create(&params, object)).await
    }

    /// Server-side apply under the one field manager, taking over fields that somebody else set.
    pub async fn apply<K: Child>(
        &self,
        namespace: &str,
        name: &str,
        object: &(impl Serialize + Debug + Sync),
    ) -> Result<K, CallError> {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(MANAGER).force();
        self.write("apply", K::KIND, api.patch(name, &params, &Patch::Apply(object))).await
    }

    /// Deletes that very object, if it is still as it was; false if it was gone before.
    pub async fn delete<K: Child>(
        &self,
        namespace: &str,
        identity: &Identity,
        grace_period_seconds: Option<u32>,
    ) -> Result<bool, CallError> {
        let Identity { name, uid, resource_version } = identity;
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let preconditions =
            Preconditions { uid: Some(uid.clone()), resource_version: Some(resource_version.clone()) };
        let params =
            DeleteParams { grace_period_seconds, ..DeleteParams::default() }.preconditions(preconditions);
        match self.write("delete", K::KIND, api.delete(name, &params)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Server-side apply of a status under its own field manager.
    pub async fn apply_status<K>(
        &self,
        api: &Api<K>,
        kind: &'static str,
        name: &str,
        object: &(impl Serialize + Debug + Sync),
    ) -> Result<K, CallError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let params = PatchParams::apply(crate::labels::STATUS_MANAGER).force();
        self.write("apply_status", kind, api.patch_status(name, &params, &Patch::Apply(object))).await
    }

    /// An event, through the recorder that puts repeated ones together.
    pub async fn publish(&self, event: impl Future<Output = kube::Result<()>>) -> Result<(), CallError> {
        self.write("publish", "Event", event).await
    }

    async fn write<T>(
        &self,
        verb: &'static str,
        kind: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        let written = match self.epoch() {
            Ok(_) => self.call(verb, kind, call).await,
            Err(error) => Err(error),
        };
        self.metrics.wrote(kind, verb, written.as_ref().map_or_else(CallError::outcome, |_| "ok"));
        written
    }

    #[tracing::instrument(level = "debug", skip(self, call))]
    async fn call<T>(
        &self,
        verb: &'static str,
        kind: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        self.count.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(CallError::Api { verb, kind, source: Box::new(source) }),
            Err(_) => Err(CallError::Timeout { verb, kind, limit: CALL_TIMEOUT }),
        }
    }
}
