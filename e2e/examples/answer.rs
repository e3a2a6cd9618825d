//! Asks a running fleet for one streamed chat answer and says what it cost: `answer URL CLUSTER_FOLDER`.
//!
//! The KV bytes that moved are the decode instances' own count, before and after; they must equal
//! layers × 2 × kv heads × head dim × element size × tokens, and must not be zero.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shoal_e2e::http;
use shoal_wire::FleetSecret;
use shoal_wire::rpc::engine_client::EngineClient;
use shoal_wire::rpc::{Fingerprint, GetStateRequest, HelloRequest, Role};
use tonic::Request;
use tonic::transport::Endpoint;

const QUESTION: &str = "\
A shoal is a group of fish that stay together for social reasons. A shoal whose fish all swim the same way in \
a coordinated manner is a school. About one quarter of all fish species shoal all their lives, and about one \
half shoal for part of their lives. Fish get many benefits from shoaling: they see a predator sooner, each of \
them is less likely to be the one that is caught, they find food faster, and they swim with less effort in the \
wake of others. Shoals change their shape without stopping. When a predator strikes, the group splits around \
it and closes again behind it, and no fish gives an order. Each one watches its neighbours only, and keeps a \
distance that is neither too small nor too large. In a few sentences: why do fish live in a shoal, and what \
happens when one of them turns?";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (url, folder) = arguments.next().zip(arguments.next()).context("usage: answer URL CLUSTER_FOLDER")?;
    let fleet = Engines::read(Path::new(&folder))?;
    let address = url.trim_start_matches("http://").trim_end_matches('/');

    let before = fleet.received().await?;
    println!("\n> {QUESTION}\n");
    let answer = stream(address).await?;
    let moved = fleet.received().await? - before;

    let layout = fleet.fingerprint().await?;
    println!("\n\ntime to first token   {:.0} ms", answer.first.as_secs_f64() * 1e3);
    println!("tokens per second     {:.1}", answer.rate);
    println!("prompt tokens         {} ({} cached)", answer.prompt, answer.cached);
    println!("KV bytes moved        {moved} from prefill to decode");
    let Fingerprint { layers, kv_heads, head_dim, ref kv_dtype, .. } = layout;
    let expected = layout.token_bytes() as u64 * (answer.prompt - answer.cached);
    let element = layout.token_bytes() as u64
        / (2 * u64::from(layers) * u64::from(kv_heads) * u64::from(head_dim)).max(1);
    println!(
        "                      {layers} layers x 2 x {kv_heads} kv heads x {head_dim} dim x {element} bytes ({kv_dtype}) \
         x {} tokens = {expected}",
        answer.prompt - answer.cached
    );
    ensure!(moved > 0, "no KV moved: the prompt was not prefilled by the prefill instance");
    ensure!(moved == expected, "{moved} bytes moved, {expected} were expected");
    Ok(())
}

struct Answer {
    first: std::time::Duration,
    /// Tokens after the first, per second.
    rate: f64,
    prompt: u64,
    cached: u64,
}

/// Prints the text as it comes.
async fn stream(address: &str) -> Result<Answer> {
    let models = http::get(address, "/v1/models").await?.ok()?;
    let body = json!({
        "model": models["data"][0]["id"],
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 96,
        "temperature": 0,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let began = Instant::now();
    let mut stream = http::stream(address, "/v1/chat/completions", &body).await?;
    ensure!(stream.status == 200, "{}", stream.status);
    let (mut first, mut last, mut usage) = (None, began, Value::Null);
    while let Some(event) = stream.next().await? {
        let piece = http::piece(&event)?;
        if !piece.is_empty() {
            last = Instant::now();
            first.get_or_insert(last);
            print!("{piece}");
            std::io::stdout().flush()?;
        }
        if event["usage"].is_object() {
            usage = event["usage"].clone();
        }
    }
    let first = first.context("the answer is empty")?;
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let tokens = count(&usage["completion_tokens"]);
    Ok(Answer {
        first: first - began,
        rate: tokens.saturating_sub(1) as f64 / (last - first).as_secs_f64().max(1e-9),
        prompt: count(&usage["prompt_tokens"]),
        cached: count(&usage["prompt_tokens_details"]["cached_tokens"]),
    })
}

/// The engines of a local fleet, by the files that its gateway reads.
struct Engines {
    addresses: Vec<String>,
    secret: FleetSecret,
}

impl Engines {
    fn read(folder: &Path) -> Result<Self> {
        let list: Value = serde_json::from_slice(&std::fs::read(folder.join("instances.json"))?)?;
        let instances = list["instances"].as_array().context("instances.json has instances")?;
        let addresses =
            instances.iter().filter_map(|entry| Some(entry["grpc"].as_str()?.to_owned())).collect();
        Ok(Self { addresses, secret: FleetSecret::read(&folder.join("secret"))? })
    }

    /// KV bytes that the decode instances have received since they started.
    async fn received(&self) -> Result<u64> {
        let mut bytes = 0;
        for address in &self.addresses {
            let channel = Endpoint::new(format!("http://{address}"))?.connect().await?;
            let call = self.secret.sign(Request::new(GetStateRequest {}));
            let state = EngineClient::new(channel).get_state(call).await?.into_inner();
            if state.role() == Role::Decode {
                bytes += state.load.unwrap_or_default().kv_bytes_received;
            }
        }
        Ok(bytes)
    }

    async fn fingerprint(&self) -> Result<Fingerprint> {
        let address = self.addresses.first().context("the fleet has no engines")?;
        let channel = Endpoint::new(format!("http://{address}"))?.connect().await?;
        let call = self.secret.sign(Request::new(HelloRequest { fingerprint: None }));
        let hello = EngineClient::new(channel).hello(call).await?.into_inner();
        hello.fingerprint.context("an engine without a fingerprint")
    }
}
