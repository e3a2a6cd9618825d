//! More than the fleet can do: refusals in milliseconds, and the rest is served.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};
use shoal_e2e::{Fleet, Role, http, model};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

fn body(prompt: &str, tokens: u32) -> Value {
    json!({"model": "smollm2", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true})
}

#[tokio::test]
async fn ten_times_the_capacity_is_refused_in_milliseconds_and_the_rest_is_served() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let fleet = Fleet::start(&model, &[Role::Prefill, Role::Decode]).await?;
    let mut fleet = fleet.with_gateway(&["--max-streams", "4"]).await?;
    let url = fleet.url()?.to_owned();
    let request = body("Once upon a time", 48);
    let alone = http::post(&url, "/v1/completions", &request).await?.ok()?;
    let baseline = fleet.sockets()?;
    let flood = (0..40).map(|_| http::post(&url, "/v1/completions", &request));
    let (served, refused): (Vec<_>, Vec<_>) =
        try_join_all(flood).await?.into_iter().partition(|reply| reply.status == 200);
    assert!(served.len() >= 4 && refused.len() >= 20, "{} served, {} refused", served.len(), refused.len());
    for reply in &served {
        assert_eq!(reply.json()?["choices"][0]["text"], alone["choices"][0]["text"]);
    }
    for reply in &refused {
        assert!(reply.status == 429 || reply.status == 503, "{reply:?}");
        assert!(reply.headers.contains_key("retry-after"), "{reply:?}");
        assert!(reply.json()?["error"]["message"].is_string());
    }
    let mut took: Vec<Duration> = refused.iter().map(|reply| reply.took).collect();
    took.sort_unstable();
    let median = took[took.len() / 2];
    assert!(median < Duration::from_millis(50), "a refusal takes {median:?}");
    fleet.settled(&baseline).await?;
    fleet.end().await
}

/// Asks for a long stream and never reads it.
async fn unread_stream(address: &str) -> Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(2048)?;
    let mut stream = socket.connect(address.parse()?).await?;
    // Many bytes per token, so that the kernel's buffers are soon full.
    let request = json!({
        "model": "smollm2", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2500,
        "ignore_eos": true, "stream": true, "logprobs": true, "top_logprobs": 20,
    });
    let text = request.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    Ok(stream)
}

#[tokio::test]
async fn clients_that_do_not_read_stall_nobody_else() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let fleet = Fleet::start(&model, &[Role::Decode]).await?;
    let fleet = fleet.with_gateway(&["--reader-timeout", "2"]).await?;
    let url = fleet.url()?.to_owned();
    let request = body("The capital of France is", 32);
    let alone = http::post(&url, "/v1/completions", &request).await?.ok()?;
    let mut unread = try_join_all((0..4).map(|_| unread_stream(&url))).await?;
    // One byte tells that the stream runs; the rest stays unread.
    for stream in &mut unread {
        stream.read_u8().await?;
    }
    let beside = http::post(&url, "/v1/completions", &request).await?.ok()?;
    assert_eq!(beside["choices"][0]["text"], alone["choices"][0]["text"]);
    // Nobody hung up; the streams are ended because nobody reads, before their 10,000 tokens are made.
    fleet.engines[0].idle(Duration::from_mins(2)).await?;
    let made = fleet.engines[0].state().await?.load.context("a load")?.tokens_out;
    assert!(made < 8000, "{made} tokens were made for clients that do not read");
    drop(unread);
    fleet.end().await
}

#[tokio::test]
async fn many_clients_leaving_at_once_leave_nothing() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let mut fleet = Fleet::start(&model, &[Role::Prefill, Role::Decode]).await?.with_gateway(&[]).await?;
    let url = fleet.url()?.to_owned();
    let mut request = body("Once upon a time", 400);
    http::post(&url, "/v1/completions", &body("Once upon a time", 2)).await?.ok()?;
    let baseline = fleet.sockets()?;
    request["stream"] = json!(true);
    let streams = join_all((0..24).map(|_| http::stream(&url, "/v1/completions", &request))).await;
    let streams: Vec<_> = streams.into_iter().collect::<Result<_>>()?;
    assert_eq!(streams.len(), 24);
    drop(streams);
    fleet.settled(&baseline).await?;
    let reply = http::post(&url, "/v1/completions", &body("Once upon a time", 4)).await?.ok()?;
    assert!(!reply["choices"][0]["text"].as_str().context("a text")?.is_empty());
    fleet.end().await
}
