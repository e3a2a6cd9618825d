//! What the gateway adds to the time to the first token, at 32 streams on a real engine.
//!
//! ```text
//! client ──HTTP──> gateway ──gRPC──> relay ──gRPC──> engine
//! client ──gRPC────────────────────> relay ──gRPC──> engine
//!   t0                                t1                      outside = (t1 - t0) + (t3 - t2)
//!   t3 <───────────────────────────── t2
//! ```
//!
//! Client and relay share a clock, so each request is its own pair, and the engine's time drops out. What is
//! left of a direct call is the instrument and the hop that both ways have; the gateway adds the rest. Prints
//! one JSON object; times are in milliseconds.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::future::try_join_all;
use serde_json::json;
use shoal_e2e::relay::{Moment, Passed};
use shoal_e2e::{Ask, Fleet, Relay, Role, http, model};
use shoal_wire::FleetSecret;
use shoal_wire::rpc::engine_client::EngineClient;
use shoal_wire::rpc::generate_event::Event;
use tokio::sync::mpsc;
use tonic::transport::Channel;

const STREAMS: usize = 32;
const REQUESTS: u32 = 640;
/// First ids of the prompts, by which requests are told apart.
const THROUGH_GATEWAY: u32 = 2000;
const DIRECT: u32 = THROUGH_GATEWAY + REQUESTS;

/// Tokens to ask for. Equal lengths would end all streams in one step and so start the next ones in one burst,
/// whose queue would be measured instead of the gateway.
fn output(key: u32) -> u32 {
    8 + key * 7 % 32
}

/// When a request was sent and when its first token came.
type Times = (Instant, Instant);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let model = model::find()?.context("SHOAL_TEST_MODEL names no file")?;
    let fleet = Fleet::start(&model, &[Role::Mixed]).await?;
    let engine = &fleet.engines[0];
    let secret = engine.secret().clone();
    let (tell, mut told) = mpsc::unbounded_channel();
    let data_address = engine.hello().data_address.clone();
    let relay = Relay::start_observed(engine.address(), data_address, secret.clone(), tell).await?;
    let fleet = fleet.with_gateway_over(&[("mixed-0", relay.address())], &[]).await?;
    let url = fleet.url()?;
    let client = EngineClient::connect(format!("http://{}", relay.address())).await?;

    let through = outside(through_gateway(url).await?, &mut told)?;
    let clients = futures::stream::iter(DIRECT..DIRECT + REQUESTS).map(|key| direct(&client, &secret, key));
    let direct = outside(clients.buffer_unordered(STREAMS).collect().await, &mut told)?;
    let added = |share| round(percentile(&through, share) - percentile(&direct, share));
    let line = json!({
        "streams": STREAMS,
        "requests": REQUESTS,
        "p50_ms": added(0.50),
        "p99_ms": added(0.99),
        "through_p50_ms": round(percentile(&through, 0.50)),
        "through_p99_ms": round(percentile(&through, 0.99)),
        "direct_p50_ms": round(percentile(&direct, 0.50)),
        "direct_p99_ms": round(percentile(&direct, 0.99)),
    });
    println!("{line}");
    fleet.end().await
}

/// All requests over HTTP, one after the other on each of the connections, as clients keep them.
async fn through_gateway(url: &str) -> Result<Vec<Result<(u32, Times)>>> {
    let keys = Cell::new(THROUGH_GATEWAY);
    let client = async || {
        let mut connection = http::Kept::connect(url).await?;
        let mut results = Vec::new();
        while keys.get() < DIRECT {
            let key = keys.replace(keys.get() + 1);
            results.push(over_http(&mut connection, key).await);
        }
        anyhow::Ok(results)
    };
    let results = try_join_all((0..STREAMS).map(|_| client())).await?;
    Ok(results.into_iter().flatten().collect())
}

/// One short streamed request.
async fn over_http(connection: &mut http::Kept, key: u32) -> Result<(u32, Times)> {
    let body = json!({
        "model": "smollm2", "prompt": [key, 500, 600, 700], "max_tokens": output(key), "ignore_eos": true, "stream": true,
    });
    let began = Instant::now();
    let mut stream = connection.stream("/v1/completions", &body).await?;
    stream.next().await?.context("no first token")?;
    let first = Instant::now();
    stream.rest().await?;
    Ok((key, (began, first)))
}

/// The same request as the gateway makes it.
async fn direct(client: &EngineClient<Channel>, secret: &FleetSecret, key: u32) -> Result<(u32, Times)> {
    let request = secret.sign(tonic::Request::new(Ask::greedy(&[key, 500, 600, 700], output(key)).request));
    let began = Instant::now();
    let mut events = client.clone().generate(request).await?.into_inner();
    let mut first = None;
    while let Some(event) = events.message().await? {
        if let (None, Some(Event::Tokens(_))) = (first, event.event) {
            first = Some(Instant::now());
        }
    }
    Ok((key, (began, first.context("no first token")?)))
}

/// Of each request, the time that it spent outside of relay and engine, in order.
fn outside(
    results: Vec<Result<(u32, Times)>>,
    told: &mut mpsc::UnboundedReceiver<Moment>,
) -> Result<Vec<Duration>> {
    let mut passed: HashMap<u32, [Option<Instant>; 2]> = HashMap::new();
    while let Ok(Moment { key, what, at }) = told.try_recv() {
        passed.entry(key).or_default()[usize::from(what == Passed::FirstToken)] = Some(at);
    }
    let mut times = Vec::new();
    for result in results {
        let (key, (began, first)) = result?;
        let [Some(request), Some(token)] = passed.get(&key).copied().unwrap_or_default() else {
            anyhow::bail!("request {key} did not pass")
        };
        times.push((request - began) + (first - token));
    }
    ensure!(times.len() == REQUESTS as usize, "{} of {REQUESTS} requests", times.len());
    times.sort_unstable();
    Ok(times)
}

/// In milliseconds, of sorted times.
fn percentile(times: &[Duration], share: f64) -> f64 {
    times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3
}

fn round(milliseconds: f64) -> f64 {
    (milliseconds * 100.0).round() / 100.0
}
