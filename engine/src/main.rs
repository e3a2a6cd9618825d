//! `shoal-engine`: one serving instance as a process.

mod device;
mod options;
mod process;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser as _;
use shoal_checkpoint::{Checkpoint, Vocabulary};
use shoal_engine::grammar::{GrammarCompiler, GrammarError};
use shoal_engine::instance::{Identity, Instance, Model, Settings};
use shoal_engine::scheduler::{self, Limits};
use shoal_engine::{metrics, server};
use shoal_wire::FleetSecret;
use shoal_wire::tls;
use tokio::net::TcpListener;

use crate::options::Options;
use crate::process::{Ready, Signals};

/// Streams that are told to end have this long.
const LAST_MESSAGES: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let options = Options::parse();
    process::log_to_stderr(&options.log)?;
    let secret = FleetSecret::read(&options.secret_file)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (model, engine) = load(&options)?;
    // Until here a signal ends the process as it ends any other.
    let signals = runtime.block_on(async { Signals::listen() })?;
    let outcome = runtime.block_on(serve(&options, secret, model, signals));
    // Transfer threads may still drain a refused frame; the process does not wait for them.
    runtime.shutdown_background();
    let ended = engine.join().map_err(|_| anyhow!("the scheduler thread panicked"))?;
    ended.context("the device was lost")?;
    outcome
}

type SchedulerThread = std::thread::JoinHandle<Result<(), shoal_model::BackendError>>;

/// Loads the model and starts its scheduler.
fn load(options: &Options) -> Result<(Model, SchedulerThread)> {
    let checkpoint = Checkpoint::open(&options.model)?;
    let model_context = checkpoint.config().max_context;
    let limits = Limits {
        max_batch: options.max_batch as usize,
        chunk: options.chunk as usize,
        max_waiting: options.max_waiting as usize,
        max_context: options.max_context.map_or(model_context, |tokens| tokens as usize),
        role: options.role.into(),
    };
    let backend = device::load(&checkpoint, options, &limits)?;
    let (geometry, config) = (*backend.geometry(), backend.config().clone());
    let fingerprint = Identity::fingerprint(&geometry, checkpoint.digest(), backend.numerics());
    let arena = Arc::clone(backend.arena());
    tracing::info!(
        model = %options.model.display(),
        pages = arena.pages(),
        page_bytes = arena.page_bytes(),
        digest = &fingerprint.model_digest[..16],
        "model loaded"
    );
    let (handle, thread) = scheduler::spawn(backend, limits)?;
    let name = options.model_name.clone().or_else(|| checkpoint.model_name().map(str::to_owned));
    let vocabulary = checkpoint.vocabulary();
    let model = Model {
        name: name.unwrap_or_else(|| "model".to_owned()),
        fingerprint,
        geometry,
        vocabulary: config.vocabulary,
        eos: config.eos,
        grammars: LazyLock::new(Box::new(move || grammars(&vocabulary))),
        arena,
        handle,
    };
    Ok((model, thread))
}

fn grammars(vocabulary: &Vocabulary) -> Result<GrammarCompiler, GrammarError> {
    let ids = 0..vocabulary.len() as u32;
    let tokens = ids.map(|id| (vocabulary.bytes(id).to_vec(), vocabulary.is_special(id)));
    GrammarCompiler::new(tokens, vocabulary.eos())
}

/// Serves until the first signal, drains until the second or the timeout, then ends the scheduler.
async fn serve(options: &Options, secret: FleetSecret, model: Model, mut signals: Signals) -> Result<()> {
    let bind = |address| async move {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let grpc = bind(options.listen).await?;
    let data = bind(options.data_listen).await?;
    let tls = options.tls_dir.as_deref().map(tls::Identity::load).transpose().context("--tls-dir")?;
    if tls.is_none() && !options.listen.ip().is_loopback() {
        tracing::warn!(listen = %options.listen, "gRPC can be read on its way: give --tls-dir, or use a private network");
    }
    let settings = Settings { instance: options.instance.clone(), stall_timeout: options.stall_timeout, tls };
    let instance = Instance::start(settings, secret, model, data)?;
    let warming = Arc::clone(&instance);
    tokio::task::spawn_blocking(move || LazyLock::force(&warming.grammars).is_ok());
    let metrics_address = match options.metrics_listen {
        None => None,
        Some(address) => {
            let listener = bind(address).await?;
            let address = listener.local_addr()?;
            tokio::spawn(metrics::serve(listener, Arc::clone(&instance)));
            Some(address)
        }
    };
    let serving = server::serve(Arc::clone(&instance), grpc)?;
    let ready = Ready {
        instance: &instance.identity.instance,
        incarnation: &instance.identity.incarnation,
        grpc: serving.address(),
        data: &instance.identity.data_address,
        metrics: metrics_address,
        pid: std::process::id(),
    };
    tracing::info!(instance = ready.instance, grpc = %ready.grpc, data = ready.data, "serving");
    if let Some(path) = &options.ready_file {
        ready.write(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    tokio::select! {
        () = signals.next() => drain(&instance, options.drain_timeout, &mut signals).await,
        () = process::scheduler_ended(&instance.handle) => tracing::error!("the scheduler ended"),
    }
    instance.handle.shutdown();
    serving.stop(LAST_MESSAGES).await;
    Ok(())
}

async fn drain(instance: &Instance, limit: Duration, signals: &mut Signals) {
    let epoch = instance.handle.state().epoch;
    let in_flight = instance.handle.drain(false, epoch).await.unwrap_or(0);
    tracing::info!(in_flight, ?limit, "draining");
    tokio::select! {
        () = process::idle(instance) => tracing::info!("drained"),
        () = tokio::time::sleep(limit) => tracing::warn!("drain timeout; the rest is aborted"),
        () = signals.next() => tracing::warn!("second signal; the rest is aborted"),
    }
}
