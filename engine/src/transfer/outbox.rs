//! The prefill side's data sockets: a few lanes per peer, each a thread with one socket.
//!
//! Lanes open when pages wait and none is free, and end after some idle seconds. A page is borrowed from
//! the arena from the moment it is queued until its last byte was handed to the kernel.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use shoal_model::{KvGeometry, PageRead};
use tokio::sync::watch;

use super::Rate;
use crate::request::Slot;

mod lane;

/// Ceilings on data sockets opened.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    pub lanes_per_peer: usize,
    pub lanes: usize,
    /// A lane without pages ends after this long. Receivers wait longer.
    pub idle: Duration,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { lanes_per_peer: 4, lanes: 64, idle: Duration::from_secs(15) }
    }
}

/// A page to send, and where it belongs on the other side.
#[derive(Debug)]
pub struct PageJob {
    pub page: PageRead,
    pub slot: Slot,
    /// Position of the page's first token in the prompt.
    pub first_token: usize,
    /// Valid tokens of the page.
    pub tokens: usize,
}

/// How far a transfer is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendState {
    pub frames: u32,
    pub payload_bytes: u64,
    /// Set once: nothing more will be sent.
    pub failed: Option<String>,
}

struct Queued {
    job: PageJob,
    transfer: Arc<Transfer>,
}

#[derive(Default)]
struct Peer {
    waiting: VecDeque<Queued>,
    lanes: usize,
    free: usize,
    wake: Arc<Condvar>,
}

struct Shared {
    key: [u8; 32],
    geometry: KvGeometry,
    limits: OutboxLimits,
    peers: Mutex<HashMap<Arc<str>, Peer>>,
    sockets: AtomicUsize,
    payload_bytes: AtomicU64,
    rate: Arc<Rate>,
    closing: AtomicBool,
}

/// Everything this process sends. Dropping it ends the lanes.
pub struct Outbox(Arc<Shared>);

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("sockets", &self.sockets()).finish_non_exhaustive()
    }
}

impl Outbox {
    pub fn new(key: [u8; 32], geometry: KvGeometry, limits: OutboxLimits, rate: Arc<Rate>) -> Self {
        Self(Arc::new(Shared {
            key,
            geometry,
            limits,
            peers: Mutex::default(),
            sockets: AtomicUsize::new(0),
            payload_bytes: AtomicU64::new(0),
            rate,
            closing: AtomicBool::new(false),
        }))
    }

    /// Starts a transfer to a peer's data socket (host:port). Nothing is opened before the first page.
    pub fn open(&self, address: &str, transfer: u64) -> Outgoing {
        let (state, changes) = watch::channel(SendState::default());
        let transfer = Arc::new(Transfer { id: transfer, state, cancelled: AtomicBool::new(false) });
        Outgoing { address: address.into(), transfer, changes, shared: Arc::clone(&self.0), queued: 0 }
    }

    /// Data sockets open now.
    pub fn sockets(&self) -> usize {
        self.0.sockets.load(Ordering::Relaxed)
    }

    /// KV payload bytes sent since start.
    pub fn payload_bytes(&self) -> u64 {
        self.0.payload_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Release);
        for peer in self.0.peers.lock().values_mut() {
            peer.waiting.clear();
            peer.wake.notify_all();
        }
    }
}

struct Transfer {
    id: u64,
    state: watch::Sender<SendState>,
    cancelled: AtomicBool,
}

impl Transfer {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    fn sent(&self, payload_bytes: u64) {
        self.state.send_modify(|state| {
            state.frames += 1;
            state.payload_bytes += payload_bytes;
        });
    }

    fn fail(&self, why: &io::Error) {
        self.cancelled.store(true, Ordering::Release);
        self.state.send_modify(|state| {
            state.failed.get_or_insert_with(|| why.to_string());
        });
    }
}

/// One transfer on its way. Dropping it cancels what was not sent.
pub struct Outgoing {
    address: Arc<str>,
    transfer: Arc<Transfer>,
    changes: watch::Receiver<SendState>,
    shared: Arc<Shared>,
    queued: u32,
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("to", &self.address)
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

impl Outgoing {
    /// Queues one page.
    pub fn send(&mut self, job: PageJob) {
        self.queued += 1;
        let queued = Queued { job, transfer: Arc::clone(&self.transfer) };
        if let Err(error) = lane::enqueue(&self.shared, &self.address, queued) {
            self.transfer.fail(&error);
        }
    }

    pub fn state(&self) -> SendState {
        self.changes.borrow().clone()
    }

    /// Waits for the next frame to be sent or the failure.
    pub async fn changed(&mut self) -> SendState {
        // `self.transfer` keeps the sender alive.
        let _ = self.changes.changed().await;
        self.changes.borrow_and_update().clone()
    }

    /// True once every queued page was handed to the kernel.
    pub fn is_sent(&self) -> bool {
        self.changes.borrow().frames == self.queued
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.transfer.cancelled.store(true, Ordering::Release);
        if let Some(peer) = self.shared.peers.lock().get_mut(&self.address) {
            peer.waiting.retain(|queued| !Arc::ptr_eq(&queued.transfer, &self.transfer));
        }
    }
}
