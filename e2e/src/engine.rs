//! One engine process and its gRPC.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shoal_wire::FleetSecret;
use shoal_wire::rpc::engine_client::EngineClient;
use shoal_wire::rpc::{EngineState, GetStateRequest, HelloReply, HelloRequest};
use shoal_wire::tls::{self, Identity};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::process::free_port;
use crate::{Process, until};

/// To load the model and answer, on a busy machine.
const START: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Prefill,
    Decode,
    Mixed,
}

impl Role {
    fn option(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Mixed => "mixed",
        }
    }
}

/// Settings that tests vary; everything else keeps its default.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    pub kv_memory: String,
    pub chunk: u32,
    pub max_batch: u32,
    /// Folder with certificates; gRPC is then within TLS.
    pub tls: Option<PathBuf>,
    /// Further options, as given on the command line.
    pub further: Vec<String>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        // A page is 64 tokens × 22.5 KiB; this holds more than 5,000 tokens, or 64 short requests.
        Self { kv_memory: "256Mi".to_owned(), chunk: 256, max_batch: 64, tls: None, further: Vec::new() }
    }
}

#[derive(Debug)]
pub struct Engine {
    pub process: Process,
    address: String,
    secret: FleetSecret,
    client: EngineClient<Channel>,
    hello: HelloReply,
}

impl Engine {
    /// Starts an engine on free ports and waits until it answers.
    pub async fn start(
        name: &str,
        role: Role,
        model: &Path,
        secret_file: &Path,
        options: &EngineOptions,
        folder: &Path,
    ) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut arguments: Vec<String> = [
            ("--name", name),
            ("--role", role.option()),
            ("--model", &model.display().to_string()),
            ("--secret-file", &secret_file.display().to_string()),
            ("--listen", &address),
            ("--data-listen", &format!("127.0.0.1:{}", free_port()?)),
            ("--kv-memory", &options.kv_memory),
            ("--chunk", &options.chunk.to_string()),
            ("--max-batch", &options.max_batch.to_string()),
            ("--threads", "1"),
        ]
        .iter()
        .flat_map(|(option, value)| [(*option).to_owned(), (*value).to_owned()])
        .collect();
        let folder_option = |tls: &PathBuf| ["--tls-dir".to_owned(), tls.display().to_string()];
        arguments.extend(options.tls.iter().flat_map(folder_option));
        arguments.extend(options.further.iter().cloned());
        let process = Process::start(name, "shoal-engine", &arguments, folder)?;
        let secret = FleetSecret::read(secret_file)?;
        let identity = options.tls.as_deref().map(Identity::load).transpose()?;
        let channel = tls::channel(&Endpoint::new(format!("http://{address}"))?, identity.as_ref());
        let limit = shoal_wire::limits::MAX_MESSAGE_BYTES;
        let client = EngineClient::new(channel).max_decoding_message_size(limit);
        let mut engine = Self { process, address, secret, client, hello: HelloReply::default() };
        engine.hello = engine.ready().await?;
        Ok(engine)
    }

    async fn ready(&mut self) -> Result<HelloReply> {
        let began = std::time::Instant::now();
        loop {
            match self.greet().await {
                Ok(hello) => return Ok(hello),
                Err(error) => {
                    let ended = self.process.exit_status()?;
                    let in_time = began.elapsed() < START;
                    ensure!(
                        ended.is_none() && in_time,
                        "{} did not start ({error:#}):\n{}",
                        self.process.name(),
                        self.process.log_tail()
                    );
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn greet(&self) -> Result<HelloReply> {
        let mut client = self.client();
        let call = client.hello(self.secret.sign(Request::new(HelloRequest { fingerprint: None })));
        Ok(tokio::time::timeout(Duration::from_secs(5), call).await??.into_inner())
    }

    pub fn name(&self) -> &str {
        self.process.name()
    }

    /// gRPC `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn secret(&self) -> &FleetSecret {
        &self.secret
    }

    pub fn client(&self) -> EngineClient<Channel> {
        self.client.clone()
    }

    /// What it said of itself at start.
    pub fn hello(&self) -> &HelloReply {
        &self.hello
    }

    /// KV bytes of one token: layers × 2 × kv heads × head dim × element size.
    pub fn token_bytes(&self) -> Result<u64> {
        Ok(self.hello.fingerprint.as_ref().context("hello has a fingerprint")?.token_bytes() as u64)
    }

    pub async fn state(&self) -> Result<EngineState> {
        let mut client = self.client();
        let call = client.get_state(self.secret.sign(Request::new(GetStateRequest {})));
        let reply = tokio::time::timeout(Duration::from_secs(10), call).await;
        Ok(reply.with_context(|| format!("{} does not answer", self.name()))??.into_inner())
    }

    /// Waits until nothing runs, waits or is being transferred, and every page is free or evictable.
    ///
    /// # Errors
    /// When that takes longer than `within`; the message names what was left.
    pub async fn idle(&self, within: Duration) -> Result<()> {
        let check = || async {
            let state = self.state().await?;
            let load = state.load.context("state has a load")?;
            ensure!(load.running == 0 && load.waiting == 0, "{} run, {} wait", load.running, load.waiting);
            ensure!(load.queued_prefill_tokens == 0, "{} prompt tokens queued", load.queued_prefill_tokens);
            ensure!(state.transfers_open == 0, "{} transfers open", state.transfers_open);
            let back = load.pages_free + load.pages_cached;
            ensure!(back == load.pages_total, "{back} of {} pages back", load.pages_total);
            Ok(())
        };
        until(&format!("{} is idle", self.name()), within, check).await
    }
}
