//! One engine process as the gateway knows it: its channel, what it last said, and what is in flight to it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use shoal_wire::limits::MAX_MESSAGE_BYTES;
use shoal_wire::rpc::engine_client::EngineClient;
use shoal_wire::rpc::{EngineState, Fingerprint, HelloReply, Load, Role};
use shoal_wire::tls::{self, Identity};
use shoal_wire::{FleetSecret, PageKey};
use tonic::transport::{Channel, Endpoint};

use super::discovery::Placement;
use crate::route::breaker::Breaker;

/// Page keys kept of one instance; an engine that reports more loses affinity, nothing else.
const MAX_PAGE_KEYS: usize = 1 << 20;
/// Unread bytes of one stream; a client that reads slowly stops here.
const STREAM_WINDOW: u32 = 64 << 10;
/// Enough for every stream of a gateway to sit at its window without holding up another one.
const CONNECTION_WINDOW: u32 = 256 << 20;

#[derive(Debug)]
pub struct Instance {
    pub placement: Placement,
    /// Of calls of Generate.
    pub breaker: Breaker,
    /// Of Prefill, as the decode instances that call it report. A process may fail at one and not the other.
    pub prefill_breaker: Breaker,
    channel: Channel,
    secret: FleetSecret,
    born: Instant,
    live: ArcSwapOption<Live>,
    pages: RwLock<HashSet<PageKey>>,
    /// Milliseconds after `born` of the last Watch event.
    heard: AtomicU64,
    in_flight: AtomicU32,
    unreported: Mutex<Unreported>,
}

/// Identity and last reported state of the process behind the address.
#[derive(Debug)]
pub struct Live {
    pub hello: HelloReply,
    pub fingerprint: Fingerprint,
    pub state: EngineState,
}

/// Work handed over since the instance last reported its load.
#[derive(Debug, Default, Clone, Copy)]
pub struct Unreported {
    pub requests: u32,
    pub prefill_tokens: u32,
}

impl Instance {
    /// Within TLS if there is an identity, unless the engine was started without.
    pub fn new(
        placement: Placement,
        secret: FleetSecret,
        tls: Option<&Arc<Identity>>,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", placement.grpc))?
            .connect_timeout(Duration::from_secs(1))
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(10)))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            // A stopped process may resume, and its streams with it: whether it is stalled is judged by its
            // events, so the transport's own patience is longer than any failover takes.
            .http2_keep_alive_interval(Duration::from_secs(15))
            .keep_alive_timeout(Duration::from_mins(1))
            .keep_alive_while_idle(true);
        let tls = tls.filter(|_| !placement.plain);
        Ok(Self {
            placement,
            breaker: Breaker::default(),
            prefill_breaker: Breaker::default(),
            channel: tls::channel(&endpoint, tls),
            secret,
            born: Instant::now(),
            live: ArcSwapOption::empty(),
            pages: RwLock::default(),
            heard: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            unreported: Mutex::default(),
        })
    }

    pub fn name(&self) -> &str {
        &self.placement.name
    }

    pub fn client(&self) -> EngineClient<Channel> {
        EngineClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub fn sign<T>(&self, message: T) -> tonic::Request<T> {
        self.secret.sign(tonic::Request::new(message))
    }

    /// What the instance last reported; none until its snapshot, or once its Watch stream broke.
    pub fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full()
    }

    /// Time since the instance was last heard.
    pub fn silence(&self, now: Instant) -> Duration {
        let heard = self.born + Duration::from_millis(self.heard.load(Ordering::Relaxed));
        now.saturating_duration_since(heard)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub fn unreported(&self) -> Unreported {
        *self.unreported.lock()
    }

    /// False saves hashing a prompt for an instance with an empty cache.
    pub fn has_pages(&self) -> bool {
        !self.pages.read().is_empty()
    }

    /// Tokens of the prompt's leading pages that the instance holds.
    pub fn cached_tokens(&self, chain: &[PageKey], page_tokens: usize) -> usize {
        let pages = self.pages.read();
        chain.iter().take_while(|&key| pages.contains(key)).count() * page_tokens
    }

    /// Counts a request until the guard is dropped.
    pub fn begin(self: &Arc<Self>, prefill_tokens: u32) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.charge(1, prefill_tokens);
        InFlight(Arc::clone(self))
    }

    /// Adds work the instance has not yet reported.
    pub fn charge(&self, requests: u32, prefill_tokens: u32) {
        let mut unreported = self.unreported.lock();
        unreported.requests = unreported.requests.saturating_add(requests);
        unreported.prefill_tokens = unreported.prefill_tokens.saturating_add(prefill_tokens);
    }

    pub(super) fn became(&self, hello: HelloReply, state: EngineState, pages: &[Bytes]) {
        let same = self.live().is_some_and(|live| live.hello.incarnation == hello.incarnation);
        if !same {
            self.breaker.succeeded();
            self.prefill_breaker.succeeded();
        }
        self.pages.write().clear();
        self.stored(pages);
        let fingerprint = hello.fingerprint.clone().unwrap_or_default();
        self.live.store(Some(Arc::new(Live { hello, fingerprint, state })));
        self.touch();
    }

    pub(super) fn reported(&self, state: EngineState) {
        *self.unreported.lock() = Unreported::default();
        if let Some(live) = self.live() {
            let Live { hello, fingerprint, state: _ } = &*live;
            self.live.store(Some(Arc::new(Live {
                hello: hello.clone(),
                fingerprint: fingerprint.clone(),
                state,
            })));
        }
        self.touch();
    }

    pub(super) fn stored(&self, keys: &[Bytes]) {
        let mut pages = self.pages.write();
        for key in keys.iter().filter_map(|key| PageKey::try_from(&key[..]).ok()) {
            if pages.len() >= MAX_PAGE_KEYS {
                break;
            }
            pages.insert(key);
        }
    }

    pub(super) fn removed(&self, keys: &[Bytes]) {
        let mut pages = self.pages.write();
        for key in keys.iter().filter_map(|key| PageKey::try_from(&key[..]).ok()) {
            pages.remove(&key);
        }
    }

    pub(super) fn lost(&self) {
        self.live.store(None);
        *self.pages.write() = HashSet::new();
    }

    pub(super) fn touch(&self) {
        self.heard.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

impl Live {
    pub fn role(&self) -> Role {
        self.state.role()
    }

    /// Admits new requests of the decode role.
    pub fn decodes(&self) -> bool {
        matches!(self.role(), Role::Decode | Role::Mixed) && !self.state.draining
    }

    /// Admits new prefill work for others.
    pub fn prefills(&self) -> bool {
        matches!(self.role(), Role::Prefill | Role::Mixed) && !self.state.draining
    }

    pub fn load(&self) -> Load {
        self.state.load.unwrap_or_default()
    }
}

/// A request in flight to an instance.
#[derive(Debug)]
pub struct InFlight(Arc<Instance>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
