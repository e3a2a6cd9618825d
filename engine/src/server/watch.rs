//! Pushes role, load and KV events. A watcher that falls behind is cut off and subscribes again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use shoal_wire::PageKey;
use shoal_wire::limits::MAX_KEYS_PER_EVENT;
use shoal_wire::rpc::watch_event::Event as Change;
use shoal_wire::rpc::{EngineState, KvRemoved, KvStored, Snapshot, WatchEvent};
use tokio::sync::{broadcast, mpsc, watch as flag};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::Events;
use super::refusal::status;
use crate::instance::Instance;
use crate::kv::KvEvent;
use crate::scheduler::KvSubscription;

/// State is sent at most this often.
const STATE_PACE: Duration = Duration::from_millis(50);
/// And at least this often.
const STATE_LIMIT: Duration = Duration::from_secs(1);
/// Messages that wait for the peer's flow control.
const WAITING: usize = 256;
/// A snapshot part that is not taken within this time ends the stream.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn start(
    instance: Arc<Instance>,
    closing: flag::Receiver<bool>,
) -> Result<Events<WatchEvent>, Status> {
    let subscription = instance.handle.subscribe().await?;
    let (messages, receiver) = mpsc::channel(WAITING);
    let watcher = Watcher { messages, seq: 0, sent: EngineState::default(), sent_at: Instant::now() };
    tokio::spawn(watcher.run(instance, subscription, closing));
    Ok(ReceiverStream::new(receiver).boxed())
}

struct Watcher {
    messages: mpsc::Sender<Result<WatchEvent, Status>>,
    seq: u64,
    sent: EngineState,
    sent_at: Instant,
}

/// The stream is over.
struct Ended;

impl Watcher {
    async fn run(
        mut self,
        instance: Arc<Instance>,
        subscription: KvSubscription,
        mut closing: flag::Receiver<bool>,
    ) {
        let KvSubscription { snapshot, mut events } = subscription;
        if self.snapshot(&instance, &snapshot).await.is_err() {
            return;
        }
        let mut pace = interval(STATE_PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let went_on = tokio::select! {
                event = events.recv() => self.kv(event),
                _ = pace.tick() => self.state(&instance),
                () = self.messages.closed() => Err(Ended),
                _ = closing.wait_for(|closing| *closing) => Err(Ended),
            };
            if went_on.is_err() {
                return;
            }
        }
    }

    async fn snapshot(&mut self, instance: &Instance, keys: &[PageKey]) -> Result<(), Ended> {
        let (first, rest) = keys.split_at(keys.len().min(MAX_KEYS_PER_EVENT));
        self.sent = instance.state();
        let state = Some(self.sent.clone());
        let snapshot = Snapshot { state, hello: Some(instance.hello()), pages: pages(first) };
        let parts = std::iter::once(Change::Snapshot(snapshot)).chain(
            rest.chunks(MAX_KEYS_PER_EVENT).map(|keys| Change::KvStored(KvStored { pages: pages(keys) })),
        );
        for part in parts {
            let message = self.number(part);
            let sent = timeout(SNAPSHOT_TIMEOUT, self.messages.send(Ok(message))).await;
            sent.map_err(|_| Ended)?.map_err(|_| Ended)?;
        }
        Ok(())
    }

    fn kv(&mut self, event: Result<KvEvent, broadcast::error::RecvError>) -> Result<(), Ended> {
        match event {
            Ok(KvEvent::Stored(keys)) => self.push(Change::KvStored(KvStored { pages: pages(&keys) })),
            Ok(KvEvent::Removed(keys)) => self.push(Change::KvRemoved(KvRemoved { pages: pages(&keys) })),
            Err(error) => {
                let message = format!("KV events were lost ({error}); subscribe again");
                let _ = self.messages.try_send(Err(status(Code::Aborted, "gap", message)));
                Err(Ended)
            }
        }
    }

    fn state(&mut self, instance: &Instance) -> Result<(), Ended> {
        let state = instance.state();
        if state == self.sent && self.sent_at.elapsed() < STATE_LIMIT {
            return Ok(());
        }
        self.sent = state.clone();
        self.sent_at = Instant::now();
        self.push(Change::State(state))
    }

    /// A full channel is a reader too slow for live state: better none than old.
    fn push(&mut self, change: Change) -> Result<(), Ended> {
        let message = self.number(change);
        self.messages.try_send(Ok(message)).map_err(|_| {
            tracing::warn!(seq = self.seq, "a watcher read too slowly and was cut off");
            Ended
        })
    }

    fn number(&mut self, change: Change) -> WatchEvent {
        self.seq += 1;
        WatchEvent { seq: self.seq, event: Some(change) }
    }
}

fn pages(keys: &[PageKey]) -> Vec<bytes::Bytes> {
    keys.iter().map(|key| bytes::Bytes::copy_from_slice(&key.0)).collect()
}
