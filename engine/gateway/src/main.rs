//! `shoal-gateway`: options, wiring, signals.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser as _;
use shoal_gateway::fleet::Fleet;
use shoal_gateway::fleet::discovery::{FileDiscovery, PodDiscovery};
use shoal_gateway::http::app::{App, Parts};
use shoal_gateway::http::keys::ApiKeys;
use shoal_gateway::http::routes;
use shoal_gateway::http::server::{Stage, serve};
use shoal_gateway::metrics::Metrics;
use shoal_gateway::options::{FleetOptions, Options};
use shoal_gateway::route::Router;
use shoal_gateway::text::{TextLimits, TextModel};
use shoal_wire::FleetSecret;
use shoal_wire::tls;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Exit status of a process ended by a second signal, as shells count SIGINT.
const INTERRUPTED: i32 = 130;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let filter = EnvFilter::try_new(&options.log).context("--log")?;
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(options.threads()).enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    // First of all, so that no signal finds the default action in between.
    let mut signals = Signals::new()?;
    let metrics = Arc::new(Metrics::new()?);
    let tls = options.tls_dir.as_deref().map(tls::Identity::load).transpose().context("--tls-dir")?;
    let fleet = Fleet::new(FleetSecret::read(&options.secret_file)?, tls, Arc::clone(&metrics));
    follow(&fleet, options.fleet.clone(), Arc::clone(&metrics)).await?;

    let text = open_model(&options).await?;
    let stage = watch::Sender::new(Stage::Serving);
    let limits = Arc::new(options.limits.clone());
    let app = App::new(Parts {
        model: options.model_name.clone(),
        text,
        router: Router::new(fleet, options.policy()),
        limits: Arc::clone(&limits),
        keys: options.api_key_file.as_deref().map(ApiKeys::read).transpose()?,
        request_timeout: options.request_timeout,
        stage: stage.subscribe(),
    });
    let listener = TcpListener::bind(options.listen).await.context("--listen")?;
    announce(&listener, options.ready_file.as_deref())?;

    let server = serve(listener, routes::router(app), limits, metrics, stage.clone(), options.shutdown_grace);
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("finishing: running streams go on, new connections are refused");
        stage.send_replace(Stage::Finishing);
        signals.next().await;
        std::process::exit(INTERRUPTED);
    });
    server.await;
    if let Some(path) = &options.ready_file {
        let _ = std::fs::remove_file(path);
    }
    tracing::info!("done");
    Ok(())
}

/// Begins to follow the fleet, wherever it is listed.
async fn follow(fleet: &Arc<Fleet>, options: FleetOptions, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let FleetOptions { instances, pods } = options;
    if let Some(selector) = pods {
        let source = PodDiscovery::new(&selector, metrics).await?;
        tokio::spawn(Arc::clone(fleet).run(source));
    } else {
        let source = FileDiscovery::new(instances.context("--instances")?, metrics);
        tokio::spawn(Arc::clone(fleet).run(source));
    }
    Ok(())
}

async fn open_model(options: &Options) -> anyhow::Result<Arc<TextModel>> {
    let begun = Instant::now();
    let (path, name) = (options.model.clone(), options.model_name.clone());
    let limits = TextLimits {
        messages: options.limits.messages,
        tools: options.limits.tools,
        input_bytes: options.limits.body_bytes,
        ..TextLimits::default()
    };
    let text = tokio::task::spawn_blocking(move || TextModel::open(&path, &name, limits)).await??;
    tracing::info!(took = ?begun.elapsed(), "tokenizer and chat template are ready");
    if let Some(why) = text.chat_unavailable() {
        tracing::warn!(why, "this model cannot chat; completions work");
    }
    Ok(Arc::new(text))
}

/// Says where the gateway listens; the file is complete or not there.
fn announce(listener: &TcpListener, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let url = format!("http://{}", listener.local_addr()?);
    tracing::info!(url, "listening");
    let Some(path) = ready_file else { return Ok(()) };
    let new = path.with_extension("new");
    let content = serde_json::json!({ "url": url, "pid": std::process::id() });
    std::fs::write(&new, content.to_string())
        .and_then(|()| std::fs::rename(&new, path))
        .context("--ready-file")
}

/// SIGTERM and SIGINT alike.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let [terminate, interrupt] = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
