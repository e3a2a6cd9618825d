//! Engines and a gateway in a folder of their own, and the proof that nothing was left behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{Engine, EngineOptions, Gateway, Process, Role, until};

/// Pages, transfers and sockets are back within a lease and a little.
const SETTLE: Duration = Duration::from_secs(35);
const STOP: Duration = Duration::from_secs(10);

/// Dropping a fleet kills its processes and removes its folder.
#[derive(Debug)]
pub struct Fleet {
    pub engines: Vec<Engine>,
    pub gateway: Option<Gateway>,
    model: PathBuf,
    secret_file: PathBuf,
    folder: TempDir,
}

impl Fleet {
    /// Starts one engine per role, named after its role and place in the list: `prefill-0`, `decode-1`.
    pub async fn start(model: &Path, roles: &[Role]) -> Result<Self> {
        Self::start_with(model, roles, &EngineOptions::default()).await
    }

    pub async fn start_with(model: &Path, roles: &[Role], options: &EngineOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("shoal-e2e-").tempdir()?;
        let secret_file = folder.path().join("secret");
        std::fs::write(&secret_file, "a secret that only this fleet of a test knows, and nobody else")?;
        let mut fleet =
            Self { engines: Vec::new(), gateway: None, model: model.to_owned(), secret_file, folder };
        for role in roles {
            fleet.add(*role, options).await?;
        }
        Ok(fleet)
    }

    /// Starts one more engine.
    pub async fn add(&mut self, role: Role, options: &EngineOptions) -> Result<()> {
        let model = self.model.clone();
        self.add_serving(role, &model, options).await
    }

    /// Starts one more engine, with another model.
    pub async fn add_serving(&mut self, role: Role, model: &Path, options: &EngineOptions) -> Result<()> {
        let kind = format!("{role:?}").to_lowercase();
        let name = format!("{kind}-{}", self.engines.len());
        let engine =
            Engine::start(&name, role, model, &self.secret_file, options, self.folder.path()).await?;
        self.engines.push(engine);
        Ok(())
    }

    /// Starts a gateway over all engines and waits until it can serve.
    pub async fn with_gateway(self, further: &[&str]) -> Result<Self> {
        let engines: Vec<(String, String)> = self
            .engines
            .iter()
            .map(|engine| (engine.name().to_owned(), engine.address().to_owned()))
            .collect();
        let engines: Vec<_> = engines.iter().map(|(name, address)| (&**name, &**address)).collect();
        self.with_gateway_over(&engines, further).await
    }

    /// Starts a gateway over the given (name, gRPC address) pairs, and waits until it can serve if there
    /// are any.
    pub async fn with_gateway_over(mut self, engines: &[(&str, &str)], further: &[&str]) -> Result<Self> {
        let further: Vec<String> = further.iter().map(|option| (*option).to_owned()).collect();
        let folder = self.folder.path();
        let mut gateway =
            Gateway::start("gateway", &self.model, &self.secret_file, engines, &further, folder).await?;
        if !engines.is_empty() {
            gateway.ready().await?;
        }
        self.gateway = Some(gateway);
        Ok(self)
    }

    /// HTTP `host:port`.
    pub fn url(&self) -> Result<&str> {
        Ok(self.gateway.as_ref().context("the fleet has no gateway")?.address())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sockets of every running process, in a fixed order.
    pub fn sockets(&mut self) -> Result<Vec<(String, usize)>> {
        self.running()?.iter().map(|process| Ok((process.name().to_owned(), process.sockets()?))).collect()
    }

    /// Waits until every running engine is idle with all pages back, and no process holds more sockets
    /// than in `baseline`.
    pub async fn settled(&mut self, baseline: &[(String, usize)]) -> Result<()> {
        self.idle().await?;
        let running: Vec<&Process> = self.running()?;
        until("sockets are back", SETTLE, || async {
            for process in &running {
                let now = process.sockets()?;
                let before = baseline.iter().find(|(name, _)| name == process.name());
                let Some((name, before)) = before else { continue };
                ensure!(now <= *before, "{name} holds {now} sockets; before it held {before}");
            }
            Ok(())
        })
        .await
    }

    /// Waits until every running engine is idle with all pages back.
    pub async fn idle(&mut self) -> Result<()> {
        for engine in &mut self.engines {
            if engine.process.exit_status()?.is_none() {
                let waited = engine.idle(SETTLE).await;
                waited.map_err(|error| error.context(engine.process.log_tail()))?;
            }
        }
        Ok(())
    }

    /// Ends the fleet: idle, pages back, every process leaves cleanly when asked to.
    pub async fn end(mut self) -> Result<()> {
        self.idle().await?;
        let gateway = self.gateway.iter_mut().map(|gateway| &mut gateway.process);
        for process in gateway.chain(self.engines.iter_mut().map(|engine| &mut engine.process)) {
            if process.exit_status()?.is_none() {
                process.terminate(STOP).await?;
            }
        }
        Ok(())
    }

    fn running(&mut self) -> Result<Vec<&Process>> {
        let gateway = self.gateway.iter_mut().map(|gateway| &mut gateway.process);
        let mut running = Vec::new();
        for process in gateway.chain(self.engines.iter_mut().map(|engine| &mut engine.process)) {
            if process.exit_status()?.is_none() {
                running.push(&*process);
            }
        }
        Ok(running)
    }
}
