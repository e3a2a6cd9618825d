//! What the gateway adds to the time to the first token, at 32 streams on a real engine.
//!
//! ```text
//! client ──HTTP──> gateway ──gRPC──> relay ──gRPC──> engine
//!   t0                        t1                              added = (t1 - t0) + (t3 - t2)
//!   t3 <──────SSE── gateway <──────── t2
//! ```
//!
//! Client and relay share a clock, so each request is its own pair, and the engine's time drops out. The hop
//! to the relay is one that a direct caller has too; it is counted against the gateway.
//! Prints one JSON object; times are in milliseconds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use serde_json::json;
use shoal_e2e::relay::{Moment, Passed};
use shoal_e2e::{Fleet, Relay, Role, http, model};
use tokio::sync::mpsc;

const STREAMS: usize = 32;
const REQUESTS: u32 = 640;
/// Ids from here on are the keys of the measured requests.
const FIRST_KEY: u32 = 2000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let model = model::find()?.context("SHOAL_TEST_MODEL names no file")?;
    let fleet = Fleet::start(&model, &[Role::Mixed]).await?;
    let engine = &fleet.engines[0];
    let (tell, mut told) = mpsc::unbounded_channel();
    let data_address = engine.hello().data_address.clone();
    let relay = Relay::start_observed(engine.address(), data_address, engine.secret().clone(), tell).await?;
    let fleet = fleet.with_gateway_over(&[("mixed-0", relay.address())], &[]).await?;
    let url = fleet.url()?;

    let clients = futures::stream::iter(0..REQUESTS).map(|number| request(url, FIRST_KEY + number));
    let results: Vec<_> = clients.buffer_unordered(STREAMS).collect().await;
    let mut sent = HashMap::new();
    for result in results {
        let (key, times) = result?;
        sent.insert(key, times);
    }
    let mut passed: HashMap<u32, [Option<Instant>; 2]> = HashMap::new();
    while let Ok(Moment { key, what, at }) = told.try_recv() {
        passed.entry(key).or_default()[usize::from(what == Passed::FirstToken)] = Some(at);
    }
    let (mut added, mut way_in, mut way_out, mut direct) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (key, (began, first)) in &sent {
        let [Some(request), Some(token)] = passed[key] else { anyhow::bail!("request {key} did not pass") };
        added.push((request - *began) + (*first - token));
        way_in.push(request - *began);
        way_out.push(*first - token);
        direct.push(token - request);
    }
    ensure!(added.len() == REQUESTS as usize, "{} of {REQUESTS} requests", added.len());
    let line = json!({
        "streams": STREAMS,
        "requests": REQUESTS,
        "p50_ms": percentile(&mut added, 0.50),
        "p99_ms": percentile(&mut added, 0.99),
        "way_in_p50_ms": percentile(&mut way_in, 0.50),
        "way_in_p99_ms": percentile(&mut way_in, 0.99),
        "way_out_p50_ms": percentile(&mut way_out, 0.50),
        "way_out_p99_ms": percentile(&mut way_out, 0.99),
        "direct_p50_ms": percentile(&mut direct, 0.50),
    });
    println!("{line}");
    fleet.end().await
}

/// Sends one short streamed request; returns when it was sent and when its first token came.
async fn request(url: &str, key: u32) -> Result<(u32, (Instant, Instant))> {
    let body = json!({
        "model": "smollm2", "prompt": [key, 500, 600, 700], "max_tokens": 16, "ignore_eos": true, "stream": true,
    });
    let began = Instant::now();
    let mut stream = http::stream(url, "/v1/completions", &body).await?;
    stream.next().await?.context("no first token")?;
    let first = Instant::now();
    while stream.next().await?.is_some() {}
    Ok((key, (began, first)))
}

/// In milliseconds.
fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len() - 1) as f64 * share).round() as usize;
    (times[at].as_secs_f64() * 1e5).round() / 100.0
}
