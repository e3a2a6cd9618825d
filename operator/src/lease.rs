//! Leader election by a Lease: one process writes, the others wait.
//!
//! ```text
//! look at the Lease ──decide──> create / take over / renew / wait ──write, if it is still as it was──> Claim
//! ```
//!
//! Written here and not taken from a crate, for three reasons. The number of takeovers has to be known: it is
//! the epoch that engines check. A claim must be a value with an end, so that it can be asked before every
//! write, also by a process that was stopped and goes on. And whether another holder has died is judged by
//! how long its record stayed the same on our own monotonic clock, so that clocks which differ between nodes
//! never make two leaders.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::watch;

use crate::server::Pulse;

/// A holder that renews no longer is replaced after this long.
pub const DURATION: Duration = Duration::from_secs(30);
/// Between renewals, and between looks at somebody else's lease.
const PERIOD: Duration = Duration::from_secs(5);
/// A claim is good for this long after its renewal began. What is left of `DURATION` lets calls end that
/// were sent in its last moment.
const VALID: Duration = Duration::from_secs(20);
/// One call may take this long.
const LIMIT: Duration = Duration::from_secs(5);
/// Epochs of a new Lease count from here, in seconds: a Lease that was deleted and made again must not begin
/// below the epochs that engines have already accepted.
const EPOCHS_BEGIN: i64 = 1_767_225_600; // 2026-01-01T00:00:00Z

/// Which Lease, and who wants it.
#[derive(Debug, Clone)]
pub struct Settings {
    pub namespace: String,
    pub name: String,
    /// Unique to this process, not only to its pod.
    pub identity: String,
}

/// The right to write, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    epoch: u64,
    until: Instant,
}

/// What a writer asks.
#[derive(Debug, Clone)]
pub struct Leadership(watch::Receiver<Option<Claim>>);

impl Leadership {
    /// The epoch, while the claim is good.
    pub fn epoch(&self) -> Option<u64> {
        let claim = *self.0.borrow();
        claim.filter(|claim| Instant::now() < claim.until).map(|claim| claim.epoch)
    }

    /// Waits until this process leads.
    pub async fn gained(&mut self) {
        while self.epoch().is_none() {
            if self.0.changed().await.is_err() {
                // The elector is gone, and with it the chance to lead.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until it leads no more, because it lost the lease or could not renew it.
    pub async fn lost(&mut self) {
        loop {
            let Some(claim) = *self.0.borrow_and_update() else { return };
            tokio::select! {
                () = tokio::time::sleep_until(claim.until.into()) => {
                    if self.epoch().is_none() {
                        return;
                    }
                }
                changed = self.0.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// For tests: leads for an hour.
    #[cfg(test)]
    pub(crate) fn held(epoch: u64) -> Self {
        let until = Instant::now() + Duration::from_hours(1);
        Self(watch::channel(Some(Claim { epoch, until })).1)
    }

    /// For tests: its claim has run out.
    #[cfg(test)]
    pub(crate) fn expired() -> Self {
        Self(watch::channel(Some(Claim { epoch: 1, until: Instant::now() })).1)
    }
}

/// A record, and since when it has not changed.
#[derive(Debug)]
struct Seen {
    resource_version: Option<String>,
    since: Instant,
}

/// Wants the lease, keeps it, gives it back.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    settings: Settings,
    seen: Option<Seen>,
    claim: watch::Sender<Option<Claim>>,
    pulse: Arc<Pulse>,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Nobody has made the Lease yet.
    Create,
    /// It is ours.
    Renew,
    /// Its holder gave it back, or has not renewed it for as long as it promised to.
    Take,
    /// Somebody else holds it.
    Wait,
}

fn decide(lease: Option<&Lease>, identity: &str, unchanged: Duration) -> Decision {
    let Some(lease) = lease else { return Decision::Create };
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    let promised = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    if holder == identity {
        Decision::Renew
    } else if holder.is_empty() || unchanged >= promised.map_or(DURATION, Duration::from_secs) {
        Decision::Take
    } else {
        Decision::Wait
    }
}

impl Elector {
    pub fn new(client: Client, settings: Settings, pulse: Arc<Pulse>) -> (Self, Leadership) {
        let (claim, receiver) = watch::channel(None);
        let api = Api::namespaced(client, &settings.namespace);
        (Self { api, settings, seen: None, claim, pulse }, Leadership(receiver))
    }

    /// Runs until the end of the process; `stop` gives the lease back at once, so that another process need
    /// not wait until it runs out.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let turned = self.turn().await;
            self.pulse.beat(turned.is_ok());
            if let Err(error) = turned {
                tracing::warn!(%error, "the lease could not be read or written");
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = &mut stop => break,
            }
        }
        self.release().await;
    }

    async fn turn(&mut self) -> Result<(), kube::Error> {
        let begun = Instant::now();
        let lease = limited(self.api.get_opt(&self.settings.name)).await?;
        let version = lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if self.seen.as_ref().is_none_or(|seen| seen.resource_version != version) {
            self.seen = Some(Seen { resource_version: version, since: begun });
        }
        let unchanged = self.seen.as_ref().map_or(Duration::ZERO, |seen| seen.since.elapsed());
        let decision = decide(lease.as_ref(), &self.settings.identity, unchanged);
        let params = PostParams::default();
        let written = match (&decision, lease) {
            (Decision::Wait, _) => {
                self.set(None);
                return Ok(());
            }
            (_, None) => limited(self.api.create(&params, &self.fresh())).await,
            (_, Some(lease)) => {
                let next = self.next(lease, decision == Decision::Take);
                limited(self.api.replace(&self.settings.name, &params, &next)).await
            }
        };
        match written {
            Ok(lease) => self.set(Some(Claim { epoch: epoch(&lease), until: begun + VALID })),
            // Somebody wrote in between. The next turn sees who; until then an earlier claim runs on, which
            // nobody could have taken before its end.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn set(&self, claim: Option<Claim>) {
        let leads = claim.is_some();
        if self.claim.send_replace(claim).is_some() != leads {
            tracing::info!(leads, identity = self.settings.identity, "leadership changed");
        }
    }

    fn fresh(&self) -> Lease {
        let since = Timestamp::now().as_second() - EPOCHS_BEGIN;
        let spec = LeaseSpec {
            lease_transitions: Some(i32::try_from(since).unwrap_or(0).max(0)),
            acquire_time: Some(wall()),
            ..LeaseSpec::default()
        };
        self.held(Lease {
            metadata: ObjectMeta {
                name: Some(self.settings.name.clone()),
                namespace: Some(self.settings.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
        })
    }

    /// The record as this process wants it; the resource version in it makes the write conditional.
    fn next(&self, mut lease: Lease, taken: bool) -> Lease {
        let spec = lease.spec.get_or_insert_default();
        if taken {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
            spec.acquire_time = Some(wall());
        }
        self.held(lease)
    }

    fn held(&self, mut lease: Lease) -> Lease {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.settings.identity.clone());
        spec.lease_duration_seconds = Some(DURATION.as_secs() as i32);
        spec.renew_time = Some(wall());
        lease
    }

    /// Gives the lease back, if it is ours. What cannot be given back runs out.
    async fn release(&self) {
        let held = self.claim.send_replace(None).is_some();
        let Ok(Some(mut lease)) = limited(self.api.get_opt(&self.settings.name)).await else { return };
        if !held || decide(Some(&lease), &self.settings.identity, Duration::ZERO) != Decision::Renew {
            return;
        }
        lease.spec.get_or_insert_default().holder_identity = Some(String::new());
        match limited(self.api.replace(&self.settings.name, &PostParams::default(), &lease)).await {
            Ok(_) => tracing::info!("gave the lease back"),
            Err(error) => tracing::warn!(%error, "the lease could not be given back and runs out"),
        }
    }
}

async fn limited<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let late = |_| kube::Error::Service("no answer within 5 s".into());
    tokio::time::timeout(LIMIT, call).await.map_err(late)?
}

/// Never 0, which an engine has before anybody spoke to it.
fn epoch(lease: &Lease) -> u64 {
    let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
    u64::try_from(transitions).unwrap_or(0) + 1
}

/// For people; no decision is made on it.
fn wall() -> MicroTime {
    MicroTime(k8s_openapi::jiff::Timestamp::now())
}

#[cfg(test)]
mod tests;
