//! An engine that speaks the protocol and makes up its tokens.
//!
//! Output token `i` of a seed is a fixed letter, whatever instance makes it, so a stream that was continued
//! elsewhere can be compared with one that was not. Each engine runs on a runtime of its own: dropping that
//! closes its sockets as the death of a process does.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use shoal_wire::rpc::engine_server::{Engine, EngineServer};
use shoal_wire::rpc::generate_event::Event;
use shoal_wire::rpc::{self, FinishReason, GenerateEvent, GenerateRequest, Load, Role, Token, WatchEvent};
use shoal_wire::{FleetSecret, PROTOCOL};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

/// Ids of the synthetic vocabulary: byte `b` is token `3 + b`.
pub(crate) fn letter(seed: u64, choice: u32, position: u64) -> u32 {
    let mixed = (seed ^ u64::from(choice) << 32).wrapping_add(position).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    3 + u32::from(b'a') + ((mixed >> 40) % 26) as u32
}

/// The text of `count` tokens.
pub(crate) fn text(seed: u64, choice: u32, count: u64) -> String {
    (0..count).map(|at| char::from((letter(seed, choice, at) - 3) as u8)).collect()
}

pub(crate) fn secret() -> FleetSecret {
    FleetSecret::from_bytes([5; 32])
}

/// What an engine does next; changed while it runs.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Milliseconds between tokens.
    pub(crate) pace_ms: AtomicU64,
    /// Nothing is sent on any stream while set.
    pub(crate) stopped: AtomicBool,
    /// Generate is answered with this.
    pub(crate) refusal: Mutex<Option<Status>>,
    /// The engine dies after this many tokens of one request; 0 is never.
    pub(crate) dies_after: AtomicU32,
    /// A stream ends as of a draining engine after this many tokens; 0 is never.
    pub(crate) drains_after: AtomicU32,
    pub(crate) calls: AtomicU32,
    pub(crate) aborts: AtomicU32,
    pub(crate) streams: AtomicU32,
    pub(crate) tokens_sent: AtomicU64,
    pub(crate) requests: Mutex<Vec<GenerateRequest>>,
}

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) script: Arc<Script>,
    pub(crate) state: watch::Sender<(Role, bool, Load)>,
    runtime: Arc<Mutex<Option<tokio::runtime::Runtime>>>,
}

impl Fake {
    pub(crate) fn start(name: &str, role: Role) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = listener.local_addr().expect("address");
        let script = Arc::new(Script::default());
        let load = Load { pages_total: 1000, pages_free: 1000, ..Load::default() };
        let state = watch::Sender::new((role, false, load));
        let holder = Arc::new(Mutex::new(None));
        let service = Service {
            name: name.to_owned(),
            incarnation: format!("{name}-{}", address.port() as u64 + script_number()),
            script: Arc::clone(&script),
            state: state.clone(),
            runtime: Arc::clone(&holder),
        };
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
            let server = tonic::transport::Server::builder().add_service(EngineServer::new(service));
            let _ = server.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        *holder.lock() = Some(runtime);
        Self { address, script, state, runtime: holder }
    }

    pub(crate) fn kill(&self) {
        die(&self.runtime);
    }

    pub(crate) fn refuse(&self, status: Option<Status>) {
        *self.script.refusal.lock() = status;
    }

    pub(crate) fn pace(&self, milliseconds: u64) {
        self.script.pace_ms.store(milliseconds, Ordering::Relaxed);
    }

    pub(crate) fn stop(&self, stopped: bool) {
        self.script.stopped.store(stopped, Ordering::Relaxed);
    }

    pub(crate) fn calls(&self) -> u32 {
        self.script.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

fn die(runtime: &Mutex<Option<tokio::runtime::Runtime>>) {
    if let Some(runtime) = runtime.lock().take() {
        runtime.shutdown_background();
    }
}

fn script_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 20);
    NEXT.fetch_add(1 << 20, Ordering::Relaxed)
}

struct Service {
    name: String,
    incarnation: String,
    script: Arc<Script>,
    state: watch::Sender<(Role, bool, Load)>,
    runtime: Arc<Mutex<Option<tokio::runtime::Runtime>>>,
}

/// Counts open streams, also those that are dropped in the middle.
struct Open(Arc<Script>);

impl Open {
    fn new(script: &Arc<Script>) -> Self {
        script.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(script))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service {
    fn engine_state(&self) -> rpc::EngineState {
        let (role, draining, load) = *self.state.borrow();
        rpc::EngineState {
            instance: self.name.clone(),
            incarnation: self.incarnation.clone(),
            role: role.into(),
            draining,
            load: Some(load),
            ..rpc::EngineState::default()
        }
    }

    fn identity(&self) -> rpc::HelloReply {
        let fingerprint = rpc::Fingerprint {
            protocol: PROTOCOL,
            layers: 2,
            kv_heads: 2,
            head_dim: 16,
            page_tokens: 64,
            kv_dtype: "f16".into(),
            ..rpc::Fingerprint::default()
        };
        rpc::HelloReply {
            instance: self.name.clone(),
            incarnation: self.incarnation.clone(),
            fingerprint: Some(fingerprint),
            max_context: 4096,
            vocabulary: 300,
            ..rpc::HelloReply::default()
        }
    }

    /// Checks that what was emitted before is what this seed gives.
    fn check(request: &GenerateRequest) -> Result<u64, Status> {
        let sampling = request.sampling.as_ref().ok_or_else(|| Status::invalid_argument("no sampling"))?;
        let prompt = request.tokens.len() - request.generated as usize;
        let before = request.tokens[prompt..].iter().zip(0..);
        let wrong = before.clone().find(|(token, at)| **token != letter(sampling.seed, 0, *at));
        match wrong {
            Some((_, at)) => Err(Status::invalid_argument(format!("token {at} of the replay is wrong"))),
            None => Ok(sampling.seed),
        }
    }
}

async fn wait_while_stopped(script: &Script) {
    while script.stopped.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn run(
    request: GenerateRequest,
    seed: u64,
    name: String,
    script: Arc<Script>,
    runtime: Arc<Mutex<Option<tokio::runtime::Runtime>>>,
    out: mpsc::Sender<Result<GenerateEvent, Status>>,
) -> Option<()> {
    let open = Open::new(&script);
    let sampling = request.sampling.clone().unwrap_or_default();
    let started = rpc::Started {
        prompt_tokens: request.tokens.len() as u32,
        prefilled_by: request.prefill.first().map_or(name, |target| target.instance.clone()),
        kv_bytes_received: if request.prefill.is_empty() { 0 } else { 1000 },
        prefill_attempts: 1,
        ..rpc::Started::default()
    };
    let event = |event| Ok(GenerateEvent { event: Some(event) });
    wait_while_stopped(&script).await;
    out.send(event(Event::Started(started))).await.ok()?;
    let mut sent = 0;
    for at in u64::from(request.generated)..u64::from(sampling.max_tokens) {
        for choice in 0..request.choices.max(1) {
            wait_while_stopped(&script).await;
            let token = Token { id: letter(seed, choice, at), logprob: Some(-0.5), top: vec![] };
            out.send(event(Event::Tokens(rpc::Tokens { choice, tokens: vec![token] }))).await.ok()?;
            script.tokens_sent.fetch_add(1, Ordering::Relaxed);
        }
        sent += 1;
        if sent == script.dies_after.load(Ordering::Relaxed) {
            // What was sent is on its way before the sockets close.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let runtime = Arc::clone(&runtime);
            std::thread::spawn(move || die(&runtime));
            std::future::pending::<()>().await;
        }
        if sent == script.drains_after.load(Ordering::Relaxed) {
            let aborted = rpc::Finished { reason: FinishReason::Aborted.into(), ..rpc::Finished::default() };
            out.send(event(Event::Finished(aborted))).await.ok()?;
            return Some(());
        }
        tokio::time::sleep(Duration::from_millis(script.pace_ms.load(Ordering::Relaxed))).await;
    }
    for choice in 0..request.choices.max(1) {
        let reason = FinishReason::Length.into();
        let finished = rpc::Finished { choice, reason, output_tokens: sampling.max_tokens, stop_token: 0 };
        out.send(event(Event::Finished(finished))).await.ok()?;
    }
    drop(open);
    Some(())
}

type Events<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Engine for Service {
    type GenerateStream = Events<GenerateEvent>;
    type PrefillStream = Events<rpc::PrefillEvent>;
    type WatchStream = Events<WatchEvent>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        secret().verify(&request)?;
        let request = request.into_inner();
        self.script.calls.fetch_add(1, Ordering::Relaxed);
        self.script.requests.lock().push(request.clone());
        wait_while_stopped(&self.script).await;
        if let Some(status) = self.script.refusal.lock().clone() {
            return Err(status);
        }
        let seed = Self::check(&request)?;
        let (out, events) = mpsc::channel(1024);
        let (script, runtime) = (Arc::clone(&self.script), Arc::clone(&self.runtime));
        let closed = out.clone();
        let work = run(request, seed, self.name.clone(), script, runtime, out);
        tokio::spawn(async move {
            tokio::select! {
                _ = work => {}
                () = closed.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn abort(&self, _: Request<rpc::AbortRequest>) -> Result<Response<rpc::AbortReply>, Status> {
        self.script.aborts.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(rpc::AbortReply { found: true }))
    }

    async fn watch(
        &self,
        request: Request<rpc::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        secret().verify(&request)?;
        let (out, events) = mpsc::channel(16);
        let snapshot =
            rpc::Snapshot { state: Some(self.engine_state()), hello: Some(self.identity()), pages: vec![] };
        let first = WatchEvent { seq: 1, event: Some(rpc::watch_event::Event::Snapshot(snapshot)) };
        out.try_send(Ok(first)).map_err(|_| Status::internal("full"))?;
        let mut changes = self.state.subscribe();
        let (script, base) = (Arc::clone(&self.script), self.engine_state());
        tokio::spawn(async move {
            for seq in 2.. {
                let _ = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
                wait_while_stopped(&script).await;
                let (role, draining, load) = *changes.borrow_and_update();
                let state =
                    rpc::EngineState { role: role.into(), draining, load: Some(load), ..base.clone() };
                let event = Some(rpc::watch_event::Event::State(state));
                if out.send(Ok(WatchEvent { seq, event })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }

    async fn hello(&self, _: Request<rpc::HelloRequest>) -> Result<Response<rpc::HelloReply>, Status> {
        Ok(Response::new(self.identity()))
    }

    async fn prefill(
        &self,
        _: Request<rpc::PrefillRequest>,
    ) -> Result<Response<Self::PrefillStream>, Status> {
        Err(Status::unimplemented("the gateway never calls it"))
    }

    async fn get_state(
        &self,
        _: Request<rpc::GetStateRequest>,
    ) -> Result<Response<rpc::EngineState>, Status> {
        Err(Status::unimplemented("the gateway never calls it"))
    }

    async fn set_role(&self, _: Request<rpc::SetRoleRequest>) -> Result<Response<rpc::SetRoleReply>, Status> {
        Err(Status::unimplemented("the gateway never calls it"))
    }

    async fn drain(&self, _: Request<rpc::DrainRequest>) -> Result<Response<rpc::DrainReply>, Status> {
        Err(Status::unimplemented("the gateway never calls it"))
    }
}
