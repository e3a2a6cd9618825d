//! Instances inside the test process: real servers, sockets and schedulers.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use shoal_checkpoint::{Checkpoint, DType, ModelConfig, SyntheticModel};
use shoal_cuda::{CudaBackend, CudaOptions};
use shoal_engine::grammar::GrammarCompiler;
use shoal_engine::instance::{Identity, Instance, Model, Settings};
use shoal_engine::scheduler::{self, Limits, Role};
use shoal_engine::server::{self, Serving};
use shoal_model::{Backend, BackendError, Compute, KvGeometry, KvMemory, LoadOptions};
use shoal_wire::FleetSecret;
use shoal_wire::rpc::engine_client::EngineClient;
use shoal_wire::rpc::generate_event::Event;
use shoal_wire::rpc::{
    FinishReason, GenerateEvent, GenerateRequest, PrefillTarget, Sampling, Started, Token,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// Nothing in these tests takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const STALL: Duration = Duration::from_millis(600);

pub(crate) fn secret() -> FleetSecret {
    FleetSecret::from_bytes([7; 32])
}

/// Two models that differ in their weights alone; written once per test process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weights {
    Usual,
    Other,
    /// With heads of the size that a GPU's kernels are built for.
    Wide,
}

impl Weights {
    pub(crate) fn path(self) -> PathBuf {
        static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
        static WRITE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _one_at_a_time = WRITE.lock().expect("no writer panicked");
        let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
        let path = folder.path().join(format!("{self:?}.gguf"));
        if !path.exists() {
            let mut model = SyntheticModel::smollm();
            model.seed += u64::from(self == Self::Other);
            if self == Self::Wide {
                model.config = ModelConfig { hidden: 256, ffn: 512, head_dim: 64, ..model.config };
            }
            model.write_gguf(&path, DType::Q8_0).expect("a synthetic model can be written");
        }
        path
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Cpu,
    Gpu,
}

#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) role: Role,
    pub(crate) weights: Weights,
    pub(crate) pages: usize,
    pub(crate) chunk: usize,
    pub(crate) max_batch: usize,
    pub(crate) max_waiting: usize,
    pub(crate) device: Device,
    /// Advertised instead of the data socket's own address.
    pub(crate) data_address: Option<String>,
}

impl Shape {
    pub(crate) fn of(role: Role) -> Self {
        Self {
            role,
            weights: Weights::Usual,
            pages: 64,
            chunk: 64,
            max_batch: 8,
            max_waiting: 64,
            device: Device::Cpu,
            data_address: None,
        }
    }
}

type SchedulerThread = std::thread::JoinHandle<Result<(), BackendError>>;

pub(crate) struct Engine {
    pub(crate) instance: Arc<Instance>,
    pub(crate) address: String,
    serving: Serving,
    thread: SchedulerThread,
}

impl Engine {
    pub(crate) async fn start(name: &str, role: Role) -> Self {
        Self::shaped(name, Shape::of(role)).await
    }

    pub(crate) async fn shaped(name: &str, shape: Shape) -> Self {
        let (model, thread) = load(&shape);
        let settings = Settings { instance: name.to_owned(), stall_timeout: STALL, tls: None };
        let data = listener().await;
        let mut instance = Instance::start(settings, secret(), model, data).expect("an instance");
        if let Some(address) = shape.data_address {
            Arc::get_mut(&mut instance).expect("not shared yet").identity.data_address = address;
        }
        let serving = server::serve(Arc::clone(&instance), listener().await).expect("a server");
        // Answered after the warm-up, which uses a page of the pool.
        instance.handle.check_integrity().await.expect("the scheduler runs").expect("pages add up");
        Self { address: serving.address().to_string(), instance, serving, thread }
    }

    pub(crate) fn name(&self) -> &str {
        &self.instance.identity.instance
    }

    pub(crate) fn target(&self) -> PrefillTarget {
        PrefillTarget { instance: self.name().to_owned(), address: self.address.clone() }
    }

    pub(crate) async fn client(&self) -> EngineClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("an address");
        EngineClient::new(endpoint.connect().await.expect("the server accepts"))
    }

    /// Waits until nothing of any request is left, and fails with what is.
    pub(crate) async fn quiet(&self) {
        let begun = Instant::now();
        loop {
            let residue = self.residue();
            if residue.is_empty() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{} still has {residue:?}", self.name());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let recount = self.instance.handle.check_integrity().await.expect("the scheduler runs");
        assert_eq!(recount, Ok(()), "{}", self.name());
    }

    fn residue(&self) -> Vec<String> {
        let view = self.instance.handle.state();
        let load = view.load;
        let held = load.pages_total - load.pages_free - load.pages_cached;
        let borrowed = (0..self.instance.arena.pages() as u32).filter(|p| self.instance.arena.is_held(*p));
        [
            ("sequences", view.in_flight),
            ("calls", self.instance.running.count()),
            ("pages in use", held as usize),
            ("pages given up but borrowed", view.pages_borrowed),
            ("pages leaked", view.leaked_pages),
            ("pages borrowed", borrowed.count()),
            ("open transfers", self.instance.table.open_transfers()),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect()
    }

    pub(crate) async fn stop(self) {
        self.instance.handle.shutdown();
        self.serving.stop(Duration::from_secs(1)).await;
        let ended = tokio::task::spawn_blocking(|| self.thread.join()).await;
        ended.expect("joined").expect("the scheduler did not panic").expect("the device works");
    }
}

async fn listener() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

fn on_cpu(checkpoint: &Checkpoint, shape: &Shape) -> Box<dyn Backend> {
    let options = LoadOptions {
        compute: Compute::Fast,
        threads: 1,
        kv: KvMemory::Pages(shape.pages),
        page_tokens: KvGeometry::PAGE_TOKENS,
        progress: &|_, _| {},
    };
    shoal_model::load(checkpoint, &options).expect("the model loads")
}

/// With the library's first choice for each product, so that two engines compute the same bits.
fn on_gpu(checkpoint: &Checkpoint, shape: &Shape) -> Box<dyn Backend> {
    let options = CudaOptions {
        kv: KvMemory::Pages(shape.pages),
        max_tokens: shape.chunk + shape.max_batch,
        max_sequences: 3 * shape.max_batch,
        max_context: checkpoint.config().max_context,
        ..CudaOptions::default()
    };
    Box::new(CudaBackend::load(checkpoint, &options).expect("the model loads"))
}

fn load(shape: &Shape) -> (Model, SchedulerThread) {
    let checkpoint = Checkpoint::open(shape.weights.path()).expect("a valid model");
    let backend = match shape.device {
        Device::Cpu => on_cpu(&checkpoint, shape),
        Device::Gpu => on_gpu(&checkpoint, shape),
    };
    let (geometry, config) = (*backend.geometry(), backend.config().clone());
    let fingerprint = Identity::fingerprint(&geometry, checkpoint.digest(), backend.numerics());
    let arena = Arc::clone(backend.arena());
    let limits = Limits {
        max_batch: shape.max_batch,
        chunk: shape.chunk,
        max_waiting: shape.max_waiting,
        max_context: config.max_context,
        role: shape.role,
    };
    let (handle, thread) = scheduler::spawn(backend, limits).expect("a scheduler thread");
    let vocabulary = checkpoint.vocabulary();
    let grammars = LazyLock::new(Box::new(move || {
        let ids = 0..vocabulary.len() as u32;
        let tokens = ids.map(|id| (vocabulary.bytes(id).to_vec(), vocabulary.is_special(id)));
        GrammarCompiler::new(tokens, vocabulary.eos())
    }) as Box<dyn FnOnce() -> _ + Send>);
    let model = Model {
        name: "tiny".to_owned(),
        fingerprint,
        geometry,
        vocabulary: config.vocabulary,
        eos: config.eos,
        grammars,
        arena,
        handle,
    };
    (model, thread)
}

pub(crate) fn signed<T>(message: T) -> Request<T> {
    let mut request = secret().sign(Request::new(message));
    request.set_timeout(PATIENCE);
    request
}

/// A prompt that shares no page with one of another `salt`.
pub(crate) fn prompt(salt: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| 3 + (salt * 31 + i * i * 7 + i) % 250).collect()
}

pub(crate) fn greedy(max_tokens: u32) -> Sampling {
    Sampling {
        top_p: 1.0,
        repetition_penalty: 1.0,
        ignore_eos: true,
        max_tokens,
        logprobs: Some(2),
        ..Default::default()
    }
}

pub(crate) fn seeded(max_tokens: u32) -> Sampling {
    Sampling { temperature: 0.9, top_k: 40, seed: 11, ..greedy(max_tokens) }
}

pub(crate) fn request(
    id: &str,
    tokens: Vec<u32>,
    sampling: Sampling,
    prefill: &[&Engine],
) -> GenerateRequest {
    GenerateRequest {
        request_id: id.to_owned(),
        tokens,
        sampling: Some(sampling),
        prefill: prefill.iter().map(|engine| engine.target()).collect(),
        ..Default::default()
    }
}

/// What a request came to.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) started: Option<Started>,
    pub(crate) tokens: Vec<Token>,
    /// By order of arrival: choice, reason, output tokens.
    pub(crate) finished: Vec<(u32, FinishReason, u32)>,
    /// Tokens of choices other than 0.
    pub(crate) others: Vec<(u32, Token)>,
}

impl Output {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    pub(crate) fn started(&self) -> &Started {
        self.started.as_ref().expect("the request started")
    }

    fn take(&mut self, event: GenerateEvent) {
        match event.event {
            Some(Event::Started(started)) => {
                assert!(self.started.is_none() && self.tokens.is_empty(), "Started comes once, and first");
                self.started = Some(started);
            }
            Some(Event::Tokens(tokens)) if tokens.choice == 0 => self.tokens.extend(tokens.tokens),
            Some(Event::Tokens(tokens)) => {
                self.others.extend(tokens.tokens.into_iter().map(|token| (tokens.choice, token)));
            }
            Some(Event::Finished(finished)) => {
                self.finished.push((finished.choice, finished.reason(), finished.output_tokens));
            }
            Some(Event::Heartbeat(_)) | None => {}
        }
    }
}

pub(crate) async fn open(
    engine: &Engine,
    request: GenerateRequest,
) -> Result<Streaming<GenerateEvent>, Status> {
    Ok(engine.client().await.generate(signed(request)).await?.into_inner())
}

/// Reads until the first token.
pub(crate) async fn first_token(stream: &mut Streaming<GenerateEvent>) {
    while let Some(event) = stream.message().await.expect("the request runs") {
        if matches!(event.event, Some(Event::Tokens(_))) {
            return;
        }
    }
    panic!("the stream ended without a token");
}

pub(crate) async fn run(engine: &Engine, request: GenerateRequest) -> Result<Output, Status> {
    let mut stream = open(engine, request).await?;
    let mut output = Output::default();
    while let Some(event) = stream.message().await? {
        output.take(event);
    }
    Ok(output)
}

/// Waits for a condition that another thread brings about.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The machine-readable reason of a refusal.
pub(crate) fn reason(status: &Status) -> &str {
    status.metadata().get(server::REASON).map_or("", |value| value.to_str().expect("ascii"))
}
