//! What mutual TLS costs the first token, and a new connection. Two fleets beside each other, one within TLS and one
//! without, are asked in turn, so that whatever else the machine does meets both. A prompt goes from the gateway to a decode
//! instance and from there to a prefill instance: two calls that TLS makes slower. Prints one JSON object; times are
//! in milliseconds.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shoal_e2e::certificates::{Authority, Volume};
use shoal_e2e::{EngineOptions, Fleet, Role, http, model};
use shoal_wire::rpc::HelloRequest;
use shoal_wire::rpc::engine_client::EngineClient;
use shoal_wire::tls::{self, Identity};
use tonic::Request;
use tonic::transport::Endpoint;

const REQUESTS: u32 = 150;
/// Two pages, so that a prefill instance is asked.
const PROMPT: usize = 128;

#[tokio::main]
async fn main() -> Result<()> {
    let model = model::find()?.context("SHOAL_TEST_MODEL names no file")?;
    let material = Authority::new("bench")?.issue("bench.fleet.shoal.internal")?;
    let folder = tempfile::tempdir()?;
    let volume = Volume::new(&folder.path().join("tls"), &material)?;
    let identity = Identity::new(&material)?;
    let plain = start(&model, None).await?;
    let within = start(&model, Some(volume.folder())).await?;

    let (mut to_plain, mut to_within) =
        (http::Kept::connect(plain.url()?).await?, http::Kept::connect(within.url()?).await?);
    let (mut first, mut hello) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for seed in 0..REQUESTS {
        first[0].push(first_token(&mut to_plain, seed).await?);
        first[1].push(first_token(&mut to_within, seed).await?);
        hello[0].push(greeting(&plain, None).await?);
        hello[1].push(greeting(&within, Some(&identity)).await?);
    }
    let [plain_first, tls_first] = first.map(sorted);
    let [plain_hello, tls_hello] = hello.map(sorted);
    let line = json!({
        "requests": REQUESTS,
        "plain_p50_ms": percentile(&plain_first, 0.50),
        "tls_p50_ms": percentile(&tls_first, 0.50),
        "plain_p95_ms": percentile(&plain_first, 0.95),
        "tls_p95_ms": percentile(&tls_first, 0.95),
        "plain_connection_p50_ms": percentile(&plain_hello, 0.50),
        "tls_connection_p50_ms": percentile(&tls_hello, 0.50),
    });
    println!("{line}");
    plain.end().await?;
    within.end().await
}

async fn start(model: &Path, tls: Option<&Path>) -> Result<Fleet> {
    let options = EngineOptions { tls: tls.map(Path::to_owned), ..EngineOptions::default() };
    let fleet = Fleet::start_with(model, &[Role::Prefill, Role::Decode], &options).await?;
    let folder = tls.map(|folder| folder.display().to_string());
    let given = folder.iter().flat_map(|folder| ["--tls-dir", folder.as_str()]);
    fleet.with_gateway(&given.chain(["--prefill", "remote"]).collect::<Vec<_>>()).await
}

/// From the request to its first token, of a prompt that no cache holds.
async fn first_token(connection: &mut http::Kept, seed: u32) -> Result<Duration> {
    let prompt = model::prompt(seed, PROMPT);
    let body =
        json!({"model": "smollm2", "prompt": prompt, "max_tokens": 2, "ignore_eos": true, "stream": true});
    let began = Instant::now();
    let mut stream = connection.stream("/v1/completions", &body).await?;
    ensure!(stream.status == 200, "{}", stream.status);
    stream.next().await?.context("no first token")?;
    let took = began.elapsed();
    stream.rest().await?;
    Ok(took)
}

/// A connection of its own to an engine, and one call.
async fn greeting(fleet: &Fleet, identity: Option<&Arc<Identity>>) -> Result<Duration> {
    let engine = &fleet.engines[1];
    let began = Instant::now();
    let endpoint = Endpoint::from_shared(format!("http://{}", engine.address()))?;
    let mut client = EngineClient::new(tls::channel(&endpoint, identity));
    client.hello(engine.secret().sign(Request::new(HelloRequest { fingerprint: None }))).await?;
    Ok(began.elapsed())
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    times
}

/// In milliseconds, of sorted times.
fn percentile(times: &[Duration], share: f64) -> f64 {
    let milliseconds = times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    (milliseconds * 100.0).round() / 100.0
}
