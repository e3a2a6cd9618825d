//! The instances: who is there (discovery), what each one says (its Watch stream), and when that changes.
//!
//! Nothing is polled at the engines; every fact has the age of its last event.

pub mod discovery;
mod follow;
pub mod instance;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use shoal_wire::FleetSecret;
use shoal_wire::tls::Identity;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use discovery::{Discovery, Placement};
pub use instance::{InFlight, Instance, Live};

use crate::metrics::Metrics;

#[derive(Debug)]
pub struct Fleet {
    pub secret: FleetSecret,
    tls: Option<Arc<Identity>>,
    pub metrics: Arc<Metrics>,
    instances: ArcSwap<Vec<Arc<Instance>>>,
    followers: Mutex<Vec<(Placement, JoinHandle<()>)>>,
    /// Rises whenever an instance comes, goes, or admits different work.
    version: watch::Sender<u64>,
    view_known: AtomicBool,
    decoders: Mutex<Decoders>,
}

/// Whether somebody decodes, and since when nobody does.
#[derive(Debug, Default)]
struct Decoders {
    present: bool,
    lost: Option<Instant>,
}

impl Fleet {
    pub fn new(secret: FleetSecret, tls: Option<Arc<Identity>>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            secret,
            tls,
            metrics,
            instances: ArcSwap::default(),
            followers: Mutex::default(),
            version: watch::Sender::new(0),
            view_known: AtomicBool::new(false),
            decoders: Mutex::default(),
        })
    }

    /// Follows the source for ever.
    pub async fn run(self: Arc<Self>, mut source: impl Discovery) {
        loop {
            let view = source.changed().await;
            self.set(view);
        }
    }

    /// Replaces the view. Instances that stay keep their channel and their state; requests in flight to
    /// one that left run on.
    pub fn set(self: &Arc<Self>, view: Vec<Placement>) {
        let mut followers = self.followers.lock();
        let old = self.instances.load_full();
        followers.retain(|(placement, task)| {
            let stays = view.contains(placement);
            if !stays {
                tracing::info!(instance = placement.name, "instance left the view");
                task.abort();
            }
            stays
        });
        let mut next = Vec::with_capacity(view.len());
        for placement in view {
            if let Some(known) = old.iter().find(|known| known.placement == placement) {
                next.push(Arc::clone(known));
                continue;
            }
            match Instance::new(placement.clone(), self.secret.clone(), self.tls.as_ref()) {
                Ok(instance) => {
                    let instance = Arc::new(instance);
                    let task = tokio::spawn(follow::follow(Arc::clone(self), Arc::clone(&instance)));
                    followers.push((placement, task));
                    next.push(instance);
                }
                Err(error) => {
                    self.metrics.discovery_errors.inc();
                    tracing::warn!(instance = placement.name, %error, "not a usable address");
                }
            }
        }
        self.instances.store(Arc::new(next));
        self.view_known.store(true, Ordering::Relaxed);
        self.bump();
    }

    pub fn instances(&self) -> Arc<Vec<Arc<Instance>>> {
        self.instances.load_full()
    }

    /// Subscribe before looking, then wait: no change is missed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// True while somebody who decodes may still turn up: the view is unknown, it lists an instance not
    /// heard yet, or the last decoder was lost less than `grace` ago.
    pub fn expects_decoder(&self, grace: Duration) -> bool {
        !self.view_known.load(Ordering::Relaxed)
            || self.instances().iter().any(|instance| instance.live().is_none())
            || self.decoders.lock().lost.is_some_and(|lost| lost.elapsed() < grace)
    }

    /// Somebody admits new requests, as far as is known.
    pub fn has_decoder(&self) -> bool {
        self.instances().iter().any(|instance| instance.live().is_some_and(|live| live.decodes()))
    }

    /// Tokens of prompt and output together that every known decode instance takes.
    pub fn max_context(&self) -> Option<u32> {
        let instances = self.instances();
        let live = instances.iter().filter_map(|instance| instance.live());
        live.filter(|live| live.decodes()).map(|live| live.hello.max_context).filter(|&max| max > 0).min()
    }

    fn bump(&self) {
        {
            let present = self.has_decoder();
            let mut decoders = self.decoders.lock();
            if decoders.present && !present {
                decoders.lost = Some(Instant::now());
            }
            decoders.present = present;
        }
        self.version.send_modify(|version| *version += 1);
        self.count_roles();
    }

    /// Brings gauges of instances up to date; for the moment before they are read.
    pub fn publish(&self) {
        self.metrics.breaker.reset();
        for instance in self.instances().iter() {
            self.metrics.breaker.with_label_values(&[instance.name()]).set(instance.breaker.gauge());
        }
    }

    fn count_roles(&self) {
        let mut counts = [("prefill", 0i64), ("decode", 0), ("mixed", 0), ("unknown", 0)];
        for instance in self.instances().iter() {
            let at = instance.live().map_or(3, |live| match live.role() {
                shoal_wire::rpc::Role::Prefill => 0,
                shoal_wire::rpc::Role::Decode => 1,
                shoal_wire::rpc::Role::Mixed => 2,
                shoal_wire::rpc::Role::Unspecified => 3,
            });
            counts[at].1 += 1;
        }
        for (role, count) in counts {
            self.metrics.instances.with_label_values(&[role]).set(count);
        }
    }
}
