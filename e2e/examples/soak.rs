//! A mixed load for `DURATION` seconds (1800) at the highest rate that the machine sustains.
//!
//! A short ramp finds the number of concurrent clients beyond which more of them bring no more tokens. Then
//! that many ask, one request after the other: short and long prompts, chats and completions, streamed and
//! whole, seeded and greedy, JSON schemas, and clients that leave. Fails on any error, on memory that grows,
//! and on pages that do not come back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use serde_json::{Value, json};
use shoal_e2e::{Fleet, Process, Role, http, model};

const RAMP_STEP: Duration = Duration::from_secs(8);
const RAMP: [usize; 6] = [1, 2, 4, 8, 16, 32];
const SAMPLE: Duration = Duration::from_secs(5);
/// Growth of resident memory, from the first quarter's mean to the last quarter's, that counts as flat.
const FLAT_BYTES: i64 = 24 << 20;

#[derive(Debug, Default)]
struct Tally {
    requests: AtomicU64,
    left: AtomicU64,
    tokens: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let seconds = std::env::var("DURATION").ok().filter(|value| !value.is_empty());
    let seconds: u64 = seconds.as_deref().unwrap_or("1800").parse().context("DURATION is in seconds")?;
    let model = model::find()?.context("SHOAL_TEST_MODEL names no file")?;
    let mut fleet = Fleet::start(&model, &[Role::Prefill, Role::Decode]).await?.with_gateway(&[]).await?;
    let url = fleet.url()?.to_owned();
    let clients = ramp(&url).await?;
    fleet.idle().await?;
    println!("{clients} clients give the most tokens per second; they ask for {seconds} s");

    let tally = Tally::default();
    let began = Instant::now();
    let load = load(&url, clients, Duration::from_secs(seconds), &tally);
    let (load, memory) = tokio::join!(load, sample(&fleet, Duration::from_secs(seconds)));
    load?;
    let took = began.elapsed().as_secs_f64();
    let memory = memory?;
    fleet.idle().await.context("pages are not back")?;

    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (requests, tokens) = (count(&tally.requests), count(&tally.tokens));
    println!("requests   {requests} ({:.1}/s), none failed", requests as f64 / took);
    println!("left early {}", count(&tally.left));
    println!("tokens out {tokens} ({:.1}/s)", tokens as f64 / took);
    println!("pages      all back");
    for (name, samples) in &memory {
        let (first, last) = quarters(samples);
        println!("memory     {name}: {} MiB at first, {} MiB at last", first >> 20, last >> 20);
        ensure!(last - first < FLAT_BYTES, "{name} grew by {} KiB", (last - first) >> 10);
    }
    fleet.end().await
}

/// The number of clients that brings the most tokens per second.
async fn ramp(url: &str) -> Result<usize> {
    let mut best = (0.0, 1);
    for clients in RAMP {
        let tally = Tally::default();
        let began = Instant::now();
        load(url, clients, RAMP_STEP, &tally).await?;
        let rate = tally.tokens.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
        println!("ramp       {clients} clients: {rate:.1} tokens/s");
        // Three per cent more is noise, not a gain.
        if rate > best.0 * 1.03 {
            best = (rate, clients);
        }
    }
    Ok(best.1)
}

async fn load(url: &str, clients: usize, duration: Duration, tally: &Tally) -> Result<()> {
    let end = Instant::now() + duration;
    let all = join_all((0..clients as u64).map(|client| async move {
        let mut turn = client * 1_000_003;
        while Instant::now() < end {
            turn += 1;
            one(url, turn, tally).await.with_context(|| format!("request {turn}"))?;
        }
        Ok::<_, anyhow::Error>(())
    }));
    all.await.into_iter().collect()
}

/// One request; `turn` decides its kind.
async fn one(url: &str, turn: u64, tally: &Tally) -> Result<()> {
    tally.requests.fetch_add(1, Ordering::Relaxed);
    let (path, mut body) = request(turn);
    if turn.is_multiple_of(3) {
        let reply = http::post(url, path, &body).await?.ok()?;
        let tokens = reply["usage"]["completion_tokens"].as_u64().context("no usage")?;
        tally.tokens.fetch_add(tokens, Ordering::Relaxed);
        return Ok(());
    }
    body["stream"] = json!(true);
    let mut stream = http::stream(url, path, &body).await?;
    ensure!(stream.status == 200, "{}", stream.status);
    let leaves = turn.is_multiple_of(17);
    let mut pieces = 0;
    while let Some(event) = stream.next().await? {
        ensure!(event.get("error").is_none(), "{event}");
        pieces += 1;
        if leaves && pieces == 3 {
            tally.left.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
    tally.tokens.fetch_add(pieces, Ordering::Relaxed);
    Ok(())
}

fn request(turn: u64) -> (&'static str, Value) {
    let words = [4, 12, 40, 120, 400][(turn % 5) as usize];
    let text = format!("{turn}: ") + &"a shoal of fish swims ".repeat(words / 4);
    let tokens = 8 + turn % 40;
    if turn.is_multiple_of(2) {
        let body = json!({
            "model": "smollm2", "prompt": text, "max_tokens": tokens, "temperature": 0.8, "seed": turn,
        });
        return ("/v1/completions", body);
    }
    let mut body = json!({
        "model": "smollm2", "messages": [{"role": "user", "content": text}], "max_tokens": tokens,
    });
    if turn.is_multiple_of(7) {
        let schema =
            json!({"type": "object", "properties": {"legs": {"type": "integer"}}, "required": ["legs"]});
        body["response_format"] =
            json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    }
    ("/v1/chat/completions", body)
}

/// Resident memory of every process, every few seconds.
async fn sample(fleet: &Fleet, duration: Duration) -> Result<BTreeMap<String, Vec<u64>>> {
    let mut samples: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let end = Instant::now() + duration;
    let mut tick = tokio::time::interval(SAMPLE);
    while Instant::now() < end {
        tick.tick().await;
        let engines = fleet.engines.iter().map(|engine| &engine.process);
        let all: Vec<&Process> =
            engines.chain(fleet.gateway.iter().map(|gateway| &gateway.process)).collect();
        for process in all {
            samples.entry(process.name().to_owned()).or_default().push(process.resident_bytes()?);
        }
    }
    Ok(samples)
}

/// Mean of the second quarter, when caches are warm, and of the last.
fn quarters(samples: &[u64]) -> (i64, i64) {
    let quarter = (samples.len() / 4).max(1);
    let mean = |part: &[u64]| (part.iter().sum::<u64>() / part.len().max(1) as u64).cast_signed();
    let second = &samples[quarter.min(samples.len() - 1)..(2 * quarter).min(samples.len())];
    (mean(second), mean(&samples[samples.len() - quarter..]))
}
