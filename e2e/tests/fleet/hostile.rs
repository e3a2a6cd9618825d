//! Clients and peers that do not play by the rules: each is refused, and the next honest request is served.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use shoal_e2e::{Ask, Fleet, Role, http, model, until};
use shoal_wire::frame::{self, Greeting, PageHeader, Side};
use shoal_wire::rpc::GetStateRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::split::Split;

/// What to send, and the status that it must get.
fn bad_requests() -> Vec<(&'static str, &'static str, Vec<u8>, u16)> {
    let chat = "/v1/chat/completions";
    let with = |change: Value| {
        let mut body = json!({"model": "smollm2", "messages": [{"role": "user", "content": "hi"}]});
        for (key, value) in change.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        body.to_string().into_bytes()
    };
    let many: Vec<Value> = vec![json!({"role": "user", "content": "x"}); 100_000];
    vec![
        ("not JSON", chat, b"{\"model\": ".to_vec(), 400),
        ("deep nesting", chat, vec![b'['; 200_000], 400),
        ("broken UTF-8", chat, b"{\"model\": \"\xff\xfe\"}".to_vec(), 400),
        (
            "NaN",
            chat,
            br#"{"model":"smollm2","messages":[{"role":"user","content":"x"}],"temperature":NaN}"#.to_vec(),
            400,
        ),
        ("no messages", chat, with(json!({"messages": []})), 400),
        ("100,000 messages", chat, with(json!({"messages": many})), 400),
        ("n = 10^9", chat, with(json!({"n": 1_000_000_000})), 400),
        ("negative n", chat, with(json!({"n": -1})), 400),
        ("huge max_tokens", chat, with(json!({"max_tokens": u64::MAX})), 400),
        ("temperature 1e30", chat, with(json!({"temperature": 1e30})), 400),
        ("top_logprobs 10^6", chat, with(json!({"logprobs": true, "top_logprobs": 1_000_000})), 400),
        ("logit_bias of no token", chat, with(json!({"logit_bias": {"99999999": 1}})), 400),
        (
            "a schema that is none",
            chat,
            with(
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}}),
            ),
            400,
        ),
        ("another model", chat, with(json!({"model": "gpt-17"})), 404),
        ("no such path", "/v1/nothing", with(json!({})), 404),
        ("a body of 40 MiB", chat, vec![b' '; 40 << 20], 413),
    ]
}

#[tokio::test]
async fn hostile_http_is_refused_with_a_proper_status() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let fleet = Fleet::start(&model, &[Role::Decode]).await?.with_gateway(&["--header-timeout", "1"]).await?;
    let url = fleet.url()?;
    let honest = json!({"model": "smollm2", "prompt": "Once", "max_tokens": 4, "temperature": 0});
    let before = http::post(url, "/v1/completions", &honest).await?.ok()?;
    for (what, path, body, status) in bad_requests() {
        let reply = http::send(url, Method::POST, path, Bytes::from(body)).await.context(what)?;
        assert_eq!(reply.status, status, "{what}: {}", String::from_utf8_lossy(&reply.body));
        assert!(reply.json()?["error"]["message"].is_string(), "{what}: {:?}", reply.body);
    }
    assert_eq!(http::get(url, "/v1/chat/completions").await?.status, 405);
    let many = "x: 1\r\n".repeat(5000);
    for (what, raw, status) in [
        ("5,000 headers", format!("GET /health HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "HTTP/1.1 431"),
        (
            "a header of 1 MiB",
            format!("GET /health HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)),
            "HTTP/1.1 431",
        ),
        ("no HTTP", "\u{1}\u{2}nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ] {
        let reply = raw_reply(url, raw.as_bytes()).await?;
        assert!(reply.starts_with(status) || reply.is_empty(), "{what}: {reply:?}");
    }
    // Half a header, then nothing: closed by the server.
    let slow = raw_reply(url, b"GET /health HT").await?;
    assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 408"), "{slow:?}");
    let after = http::post(url, "/v1/completions", &honest).await?.ok()?;
    assert_eq!(after["choices"][0]["text"], before["choices"][0]["text"]);
    fleet.end().await
}

/// Sends bytes and reads until the server closes or answered a head.
async fn raw_reply(address: &str, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // The server may refuse before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut reply = vec![0; 64];
    let read = tokio::time::timeout(Duration::from_secs(15), stream.read(&mut reply)).await;
    let read = read.context("the connection stays open and silent")?.unwrap_or(0);
    Ok(String::from_utf8_lossy(&reply[..read]).into_owned())
}

/// Greets as a peer; with the right key the connection is accepted.
async fn connect(address: &str, key: &[u8; 32]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let ours = Greeting { nonce: [7; 32] };
    stream.write_all(&ours.encode()).await?;
    let mut bytes = [0; frame::GREETING_BYTES];
    stream.read_exact(&mut bytes).await?;
    let theirs = Greeting::decode(&bytes)?;
    stream.write_all(&frame::proof(key, Side::Client, &ours, &theirs)).await?;
    Ok(stream)
}

/// True once the other side closed.
async fn closes(stream: &mut TcpStream) -> Result<()> {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut rest)).await;
    // A reset is a close too.
    let _ = read.context("the connection stays open")?;
    Ok(())
}

#[tokio::test]
async fn hostile_frames_land_nowhere() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let split = Split::start(&model).await?;
    let decode = split.decode();
    let address = decode.hello().data_address.clone();
    let key = decode.secret().data_key();

    let mut nonsense = TcpStream::connect(&address).await?;
    nonsense.write_all(&[0x55; 4096]).await?;
    closes(&mut nonsense).await.context("not a greeting")?;

    let mut stranger = connect(&address, &[9; 32]).await?;
    closes(&mut stranger).await.context("a proof with another secret")?;

    let header = PageHeader {
        transfer: 0xdead,
        slot: u32::MAX,
        generation: 1,
        first_token: 0,
        tokens: 64,
        payload_bytes: 4096,
        checksum: 0,
    };
    let mut liar = connect(&address, &key).await?;
    let mut huge = header.encode();
    huge[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    liar.write_all(&huge).await?;
    closes(&mut liar).await.context("a frame of 2^64 bytes")?;

    let before = split.refused_frames().await?;
    let mut unknown = connect(&address, &key).await?;
    unknown.write_all(&header.encode()).await?;
    unknown.write_all(&[0; 4096]).await?;
    until("the unknown transfer is refused", Duration::from_secs(10), || async {
        let now = split.refused_frames().await?;
        ensure!(now > before, "{now} frames refused");
        Ok(())
    })
    .await?;
    drop(unknown);

    let ask = Ask::greedy(&model::prompt(61, 200), 8);
    let expected = split.undisturbed(ask.clone()).await?;
    let answer = split.through_proxy(ask).run(decode).await?;
    assert_eq!(answer.exact(), expected.exact());
    assert_eq!(answer.prefilled_by(), "prefill-0");
    split.end().await
}

#[tokio::test]
async fn a_call_without_the_secret_or_beyond_the_limits_is_refused() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let fleet = Fleet::start(&model, &[Role::Mixed]).await?;
    let engine = &fleet.engines[0];
    let unsigned = engine.client().get_state(tonic::Request::new(GetStateRequest {})).await;
    assert_eq!(unsigned.err().map(|status| status.code()), Some(tonic::Code::Unauthenticated));

    let ask = Ask::greedy(&model::prompt(62, 10), 4);
    let changed = |change: &dyn Fn(&mut Ask)| {
        let mut ask = ask.clone();
        change(&mut ask);
        ask
    };
    let wrong: [(&str, Ask); 5] = [
        ("a token beyond the vocabulary", changed(&|ask| ask.request.tokens[3] = u32::MAX)),
        ("no tokens", changed(&|ask| ask.request.tokens.clear())),
        ("a long request id", changed(&|ask| ask.request.request_id = "x".repeat(100))),
        ("too many choices", changed(&|ask| ask.request.choices = 1_000_000)),
        ("more tokens than the context", changed(&|ask| ask.request.tokens = vec![5; 200_000])),
    ];
    for (what, ask) in wrong {
        let refused = ask.run(engine).await;
        assert!(refused.is_err(), "{what} was accepted");
    }
    assert_eq!(ask.run(engine).await?.tokens.len(), 4);
    fleet.end().await
}
