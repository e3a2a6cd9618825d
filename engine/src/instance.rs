//! One serving instance: the scheduler's handle, both ends of the transfer, and who they are.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use shoal_model::{KvGeometry, PageArena};
use shoal_wire::rpc::{EngineState, Fingerprint, HelloReply};
use shoal_wire::tls::Identity as TlsIdentity;
use shoal_wire::{FleetSecret, PROTOCOL};

use tokio::net::TcpListener;

use crate::grammar::{GrammarCompiler, GrammarError};
use crate::metrics::Metrics;
use crate::request::Class;
use crate::scheduler::Handle;
use crate::server::{PeerChannels, RunningRequests};
use crate::transfer::{Inbox, InboxLimits, Outbox, OutboxLimits, Rate, TransferTable};

/// Grammar tables take long to build for a large vocabulary, so they are built when first asked for.
pub type LazyGrammars = LazyLock<
    Result<GrammarCompiler, GrammarError>,
    Box<dyn FnOnce() -> Result<GrammarCompiler, GrammarError> + Send>,
>;

/// What never changes while the process runs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Name given at start.
    pub instance: String,
    /// Random, new with each process.
    pub incarnation: String,
    /// Name of the model for people and routers.
    pub model: String,
    pub fingerprint: Fingerprint,
    /// Token ids are `0..vocabulary`.
    pub vocabulary: usize,
    /// Tokens that end a sequence.
    pub eos: Vec<u32>,
    /// host:port at which peers reach the data socket.
    pub data_address: String,
}

/// A loaded model and its scheduler.
pub struct Model {
    pub name: String,
    pub fingerprint: Fingerprint,
    pub geometry: KvGeometry,
    pub vocabulary: usize,
    pub eos: Vec<u32>,
    pub grammars: LazyGrammars,
    pub arena: Arc<PageArena>,
    pub handle: Handle,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the instance.
    pub instance: String,
    /// A prefill instance that gives no sign of life for this long is given up.
    pub stall_timeout: Duration,
    /// What gRPC proves itself with, both ways; none on loopback.
    pub tls: Option<Arc<TlsIdentity>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("data socket: {0}")]
    Data(std::io::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl StartError {
    pub fn class(&self) -> Class {
        match self {
            Self::Data(_) => Class::Transient,
            Self::Metrics(_) => Class::Fatal,
        }
    }
}

impl Identity {
    /// A new incarnation's name.
    fn incarnation() -> std::io::Result<String> {
        Ok(format!("{:016x}", u64::from_le_bytes(crate::transfer::random()?)))
    }

    /// What must be equal before pages may move between this process and another.
    pub fn fingerprint(geometry: &KvGeometry, model_digest: String, numerics: &str) -> Fingerprint {
        Fingerprint {
            protocol: PROTOCOL,
            model_digest,
            layers: geometry.layers as u32,
            kv_heads: geometry.kv_heads as u32,
            head_dim: geometry.head_dim as u32,
            page_tokens: geometry.page_tokens as u32,
            kv_dtype: geometry.dtype.name().to_owned(),
            // Releases may change the last bits of a kernel; their pages then must not mix.
            numerics: format!("{numerics}-{}", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// Shared by all calls.
pub struct Instance {
    pub identity: Identity,
    pub secret: FleetSecret,
    pub handle: Handle,
    pub grammars: LazyGrammars,
    pub arena: Arc<PageArena>,
    pub geometry: KvGeometry,
    pub table: Arc<TransferTable>,
    pub inbox: Inbox,
    pub outbox: Outbox,
    /// KV bytes per second, sent or received.
    pub transfer_rate: Arc<Rate>,
    /// Milliseconds of a remote prefill beyond compute and transfer.
    pub prefill_overhead: Rate,
    /// A prefill instance that gives no sign of life for this long is given up.
    pub stall_timeout: Duration,
    pub tls: Option<Arc<TlsIdentity>>,
    pub running: RunningRequests,
    pub peers: PeerChannels,
    pub metrics: Metrics,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Instance {
    /// Puts the parts together and opens the data socket. Must be called inside a tokio runtime.
    pub fn start(
        settings: Settings,
        secret: FleetSecret,
        model: Model,
        data: TcpListener,
    ) -> Result<Arc<Self>, StartError> {
        let Model { name, fingerprint, geometry, vocabulary, eos, grammars, arena, handle } = model;
        let rate = Arc::new(Rate::default());
        let generations = handle.generations().clone();
        let table = TransferTable::new(Arc::clone(&arena), generations, geometry, Arc::clone(&rate));
        let inbox = Inbox::start(data, secret.data_key(), Arc::clone(&table), InboxLimits::default())
            .map_err(StartError::Data)?;
        let identity = Identity {
            instance: settings.instance,
            incarnation: Identity::incarnation().map_err(StartError::Data)?,
            model: name,
            fingerprint,
            vocabulary,
            eos,
            data_address: inbox.address().to_string(),
        };
        Ok(Arc::new(Self {
            identity,
            outbox: Outbox::new(secret.data_key(), geometry, OutboxLimits::default(), Arc::clone(&rate)),
            secret,
            handle,
            grammars,
            arena,
            geometry,
            table,
            inbox,
            transfer_rate: rate,
            prefill_overhead: Rate::default(),
            stall_timeout: settings.stall_timeout,
            peers: PeerChannels::new(settings.tls.clone()),
            tls: settings.tls,
            running: RunningRequests::default(),
            metrics: Metrics::new()?,
        }))
    }

    /// The scheduler's state and that of the transfers.
    pub fn state(&self) -> EngineState {
        let view = self.handle.state();
        let mut load = view.load;
        load.transfer_rate = self.transfer_rate.get();
        load.prefill_overhead_ms = self.prefill_overhead.get();
        load.kv_bytes_sent = self.outbox.payload_bytes();
        load.kv_bytes_received = self.table.payload_bytes();
        load.frames_refused = self.table.refused_total();
        EngineState {
            instance: self.identity.instance.clone(),
            incarnation: self.identity.incarnation.clone(),
            role: shoal_wire::rpc::Role::from(view.role).into(),
            epoch: view.epoch,
            draining: view.draining,
            load: Some(load),
            prefill_residue: view.prefill_residue as u32,
            decode_residue: view.decode_residue as u32,
            model: self.identity.model.clone(),
            transfers_open: self.table.open_transfers() as u64,
            data_sockets: (self.inbox.sockets() + self.outbox.sockets()) as u32,
        }
    }

    pub fn hello(&self) -> HelloReply {
        HelloReply {
            instance: self.identity.instance.clone(),
            incarnation: self.identity.incarnation.clone(),
            fingerprint: Some(self.identity.fingerprint.clone()),
            data_address: self.identity.data_address.clone(),
            max_context: self.handle.max_context() as u32,
            vocabulary: self.identity.vocabulary as u32,
        }
    }
}
