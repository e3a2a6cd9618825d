//! One gateway process over a list of engines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::process::free_port;
use crate::{Process, http, until};

const START: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub struct Gateway {
    pub process: Process,
    address: String,
    instances: PathBuf,
}

impl Gateway {
    /// Starts a gateway that serves `model` as `smollm2`; `further` are command line options.
    pub async fn start(
        name: &str,
        model: &Path,
        secret_file: &Path,
        engines: &[(&str, &str)],
        further: &[String],
        folder: &Path,
    ) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let instances = folder.join(format!("{name}.instances.json"));
        write_instances(&instances, engines)?;
        let mut arguments: Vec<String> = [
            ("--listen", address.as_str()),
            ("--model", &model.display().to_string()),
            ("--model-name", "smollm2"),
            ("--secret-file", &secret_file.display().to_string()),
            ("--instances", &instances.display().to_string()),
        ]
        .iter()
        .flat_map(|(option, value)| [(*option).to_owned(), (*value).to_owned()])
        .collect();
        arguments.extend_from_slice(further);
        let mut gateway =
            Self { process: Process::start(name, "shoal-gateway", &arguments, folder)?, address, instances };
        gateway.answers("/health").await?;
        Ok(gateway)
    }

    /// Waits until the gateway can serve: it knows its engines.
    pub async fn ready(&mut self) -> Result<()> {
        self.answers("/ready").await
    }

    async fn answers(&mut self, path: &str) -> Result<()> {
        let ended = self.process.exit_status()?;
        ensure!(ended.is_none(), "the gateway ended:\n{}", self.process.log_tail());
        let address = &self.address;
        let what = format!("{path} answers 200");
        let asked = until(&what, START, || async move {
            let reply = http::get(address, path).await?;
            ensure!(reply.status == 200, "{}: {}", reply.status, String::from_utf8_lossy(&reply.body));
            Ok(())
        });
        asked.await.map_err(|error| error.context(self.process.log_tail()))
    }

    /// HTTP `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Replaces the list of engines.
    pub fn list(&self, engines: &[(&str, &str)]) -> Result<()> {
        write_instances(&self.instances, engines)
    }
}

/// Atomically, as whoever places engines does.
fn write_instances(path: &Path, engines: &[(&str, &str)]) -> Result<()> {
    let list: Vec<_> = engines.iter().map(|(name, grpc)| json!({"name": name, "grpc": grpc})).collect();
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec(&json!({ "instances": list }))?)?;
    std::fs::rename(&fresh, path)?;
    Ok(())
}
