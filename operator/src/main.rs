//! `shoal-operator`: options, wiring, signals.

use std::{io::IsTerminal as _, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use kube::{Client, Config};
use shoal_operator::{
    controller::{self, Parts},
    lease::{Elector, Settings},
    metrics::Metrics,
    options::{LogFormat, Options},
    server::{self, Pulse},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

/// Reconciles that run when the process is to end have this long.
const LAST_LOOKS: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let filter = EnvFilter::try_new(&options.log).context("--log")?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().init(),
    }
    run(options).await
}

async fn run(options: Options) -> anyhow::Result<()> {
    // First of all, so that no signal finds the default action in between.
    let mut ending = ending()?;
    let client = client().await?;
    let metrics = Arc::new(Metrics::new()?);
    let pulse = Arc::new(Pulse::default());
    let listener = TcpListener::bind(options.listen).await.context("--listen")?;
    tracing::info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    tokio::spawn(server::serve(listener, Arc::clone(&pulse), Arc::clone(&metrics)));

    let identity = identity(&options.name)?;
    let settings = Settings {
        namespace: options.operator_namespace.clone(),
        name: options.lease.clone(),
        identity: identity.clone(),
    };
    let (elector, mut leadership) = Elector::new(client.clone(), settings, pulse);
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let elector = tokio::spawn(elector.run(async {
        let _ = released.await;
    }));
    let parts = Parts {
        client,
        scope: options.scope(),
        surroundings: options.surroundings(),
        leadership: leadership.clone(),
        metrics: Arc::clone(&metrics),
        identity,
    };
    let outcome = loop {
        tokio::select! {
            () = leadership.gained() => {}
            () = ended(&mut ending) => break Ok(()),
        }
        metrics.leader.set(1);
        let led = lead(parts.clone(), &ending).await;
        metrics.leader.set(0);
        if led.is_err() || *ending.borrow() {
            break led;
        }
        tracing::warn!("the lease is lost; waiting to lead again");
    };
    // Only now: somebody else leads when nothing is written here any more.
    drop(release);
    let _ = elector.await;
    tracing::info!("done");
    outcome
}

/// Leads until the lease is lost or the process is to end, and lets running reconciles finish.
async fn lead(parts: Parts, ending: &watch::Receiver<bool>) -> anyhow::Result<()> {
    let (mut leadership, mut until) = (parts.leadership.clone(), ending.clone());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut looks = std::pin::pin!(controller::run(parts, async {
        let _ = stopped.await;
    }));
    tokio::select! {
        ended = &mut looks => return Ok(ended?),
        () = leadership.lost() => {}
        () = ended(&mut until) => tracing::info!("finishing"),
    }
    drop(stop);
    if let Ok(ended) = tokio::time::timeout(LAST_LOOKS, looks).await {
        return Ok(ended?);
    }
    tracing::warn!("reconciles did not end in time");
    Ok(())
}

/// The service account of the pod, or the kubeconfig. The client itself waits and tries again when an API
/// server says that it is busy; each call of a reconcile has an end all the same (`calls`).
async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer().await.context("neither in a cluster nor with a kubeconfig")?;
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(Client::try_from(config)?)
}

/// Unique to this process: a container that was restarted in its pod is somebody else to the lease.
fn identity(name: &str) -> anyhow::Result<String> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).context("no randomness")?;
    Ok(format!("{name}-{:08x}", u32::from_le_bytes(bytes)))
}

/// Becomes true with SIGTERM or SIGINT; a second one ends the process at once.
fn ending() -> anyhow::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let [terminate, interrupt] = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let (mut terminate, mut interrupt) = (terminate?, interrupt?);
    tokio::spawn(async move {
        for count in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if count > 0 {
                std::process::exit(130);
            }
            sender.send_replace(true);
        }
    });
    Ok(receiver)
}

async fn ended(ending: &mut watch::Receiver<bool>) {
    if ending.wait_for(|ending| *ending).await.is_err() {
        std::future::pending::<()>().await;
    }
}
