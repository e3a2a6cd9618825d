//! What makes the engine a well-behaved process: logs, signals, the ready file.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use shoal_engine::instance::Instance;
use shoal_engine::scheduler::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

pub(crate) fn log_to_stderr(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("--log {filter:?}: allowed is a level or module=level,…"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ends when no call runs and the scheduler holds nothing.
pub(crate) async fn idle(instance: &Instance) {
    let mut changes = instance.handle.state_changes();
    while instance.handle.state().in_flight > 0 || instance.running.count() > 0 {
        // A call ends a moment after its last event, without a change of the scheduler's state.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(20), changes.changed()).await;
    }
}

/// Ends when the scheduler thread is gone.
pub(crate) async fn scheduler_ended(handle: &Handle) {
    let mut changes = handle.state_changes();
    while changes.changed().await.is_ok() {}
}

/// How whoever started the process learns its ports.
#[derive(Debug, Serialize)]
pub(crate) struct Ready<'a> {
    pub(crate) instance: &'a str,
    pub(crate) incarnation: &'a str,
    pub(crate) grpc: SocketAddr,
    pub(crate) data: &'a str,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) pid: u32,
}

impl Ready<'_> {
    /// The file appears whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".{}", self.pid));
        let mut file = std::fs::File::create(&partial)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        std::fs::rename(&partial, path)
    }
}
