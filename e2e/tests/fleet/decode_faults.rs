//! A decode instance lost mid-stream: the gateway goes on with another, and the client sees one text.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use shoal_e2e::{Fleet, Role, http, model};

const FLEET: &[Role] = &[Role::Prefill, Role::Decode, Role::Decode];

fn body(seed: u64, stream: bool) -> Value {
    json!({
        "model": "smollm2",
        "messages": [{"role": "user", "content": "Tell me a long story about a shoal of fish."}],
        "max_tokens": 96,
        "temperature": 0.8,
        "seed": seed,
        "ignore_eos": true,
        "stream": stream,
    })
}

/// The engine that runs the one request in flight.
async fn decoding(fleet: &Fleet) -> Result<usize> {
    for (at, engine) in fleet.engines.iter().enumerate().skip(1) {
        if engine.state().await?.load.is_some_and(|load| load.running > 0) {
            return Ok(at);
        }
    }
    anyhow::bail!("no decode instance runs anything")
}

#[derive(Clone, Copy)]
enum Loss {
    Kill,
    Pause,
}

/// Streams one answer, loses its decode instance after a few tokens, and compares the text.
async fn survives(loss: Loss) -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let mut fleet = Fleet::start(&model, FLEET).await?.with_gateway(&[]).await?;
    let url = fleet.url()?.to_owned();
    let expected = http::post(&url, "/v1/chat/completions", &body(3, false)).await?.ok()?;
    let expected = expected["choices"][0]["message"]["content"].as_str().context("a text")?.to_owned();

    let mut stream = http::stream(&url, "/v1/chat/completions", &body(3, true)).await?;
    let mut text = String::new();
    let mut pieces = 0;
    while pieces < 5 {
        let piece = http::piece(&stream.next().await?.context("the stream is young")?)?;
        pieces += usize::from(!piece.is_empty());
        text.push_str(&piece);
    }
    let at = decoding(&fleet).await?;
    match loss {
        Loss::Kill => fleet.engines[at].process.kill()?,
        Loss::Pause => fleet.engines[at].process.pause()?,
    }
    let rest = stream.text().await;
    if matches!(loss, Loss::Pause) {
        fleet.engines[at].process.resume()?;
    }
    text.push_str(&rest?);
    assert_eq!(text, expected, "no token is lost, repeated or different");
    fleet.end().await
}

#[tokio::test]
async fn a_stream_survives_its_decode_instance_killed() -> Result<()> {
    survives(Loss::Kill).await
}

#[tokio::test]
async fn a_stream_survives_its_decode_instance_falling_silent() -> Result<()> {
    survives(Loss::Pause).await
}

#[tokio::test]
async fn with_no_decode_instance_left_the_answer_is_an_error_and_not_silence() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let mut fleet = Fleet::start(&model, &[Role::Decode]).await?.with_gateway(&[]).await?;
    fleet.engines[0].process.kill()?;
    let reply = http::post(fleet.url()?, "/v1/chat/completions", &body(3, false)).await?;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.headers.contains_key("retry-after"), "{reply:?}");
    assert!(reply.json()?["error"]["message"].is_string());
    assert!(reply.took < Duration::from_secs(10), "{:?}", reply.took);
    fleet.end().await
}
