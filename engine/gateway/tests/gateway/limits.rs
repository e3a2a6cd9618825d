//! Clients that ask for too much, send nonsense, do not read, or leave.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use shoal_gateway::http::keys::ApiKeys;
use shoal_gateway::http::routes::{Access, ROUTES};
use shoal_gateway::http::server::Stage;
use shoal_gateway::limits::Limits;
use shoal_wire::rpc::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::answers::completion;
use crate::fake::{Fake, text};
use crate::world::{MODEL, Setup, World, until};

#[tokio::test]
async fn hostile_bodies_are_a_400_that_names_the_parameter_and_the_engine_never_sees_them() {
    let engine = Fake::start("d", Role::Mixed);
    let world = World::new(&[("d", &engine)]).await;
    let user = json!([{"role": "user", "content": "hi"}]);
    let table: Vec<(&str, Value, Option<&str>)> = vec![
        ("/v1/chat/completions", json!({}), Some("messages")),
        ("/v1/chat/completions", json!({"messages": []}), Some("messages")),
        ("/v1/chat/completions", json!({"messages": "hi"}), Some("messages")),
        ("/v1/chat/completions", json!({"messages": vec![&user[0]; 1025]}), Some("messages")),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "wizard", "content": "x"}]}),
            Some("messages[0].role"),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": 7}]}),
            Some("messages[0].content"),
        ),
        ("/v1/chat/completions", json!({"messages": user, "n": 1_000_000_000}), Some("n")),
        ("/v1/chat/completions", json!({"messages": user, "max_tokens": 0}), Some("max_tokens")),
        ("/v1/chat/completions", json!({"messages": user, "max_tokens": 1_000_000}), Some("messages")),
        (
            "/v1/chat/completions",
            json!({"messages": user, "max_completion_tokens": -5}),
            Some("max_completion_tokens"),
        ),
        ("/v1/chat/completions", json!({"messages": user, "top_logprobs": 3}), Some("top_logprobs")),
        (
            "/v1/chat/completions",
            json!({"messages": user, "logprobs": true, "top_logprobs": 21}),
            Some("top_logprobs"),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": user, "min_tokens": 9, "max_tokens": 8}),
            Some("min_tokens"),
        ),
        ("/v1/chat/completions", json!({"messages": user, "functions": []}), Some("functions")),
        (
            "/v1/chat/completions",
            json!({"messages": user, "response_format": {"type": "xml"}}),
            Some("response_format.type"),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": user, "regex": "a", "grammar": "start: \"a\""}),
            Some("grammar"),
        ),
        ("/v1/chat/completions", json!({"messages": user, "regex": "(("}), Some("regex")),
        ("/v1/completions", json!({}), Some("prompt")),
        ("/v1/completions", json!({"prompt": ""}), Some("prompt")),
        ("/v1/completions", json!({"prompt": []}), Some("prompt")),
        ("/v1/completions", json!({"prompt": [1, "a"]}), Some("prompt")),
        ("/v1/completions", json!({"prompt": [4_000_000_000u32]}), Some("prompt")),
        ("/v1/completions", json!({"prompt": vec!["x"; 33]}), Some("prompt")),
        ("/v1/completions", json!({"prompt": "x", "suffix": "y"}), Some("suffix")),
        ("/v1/completions", json!({"prompt": "x", "best_of": 2}), Some("best_of")),
        ("/v1/completions", json!({"prompt": "x", "echo": true, "logprobs": 1}), Some("echo")),
        ("/v1/completions", json!({"prompt": vec![5; 5000]}), Some("prompt")),
        ("/v1/tokenize", json!({}), Some("prompt")),
        ("/v1/detokenize", json!({"tokens": [-1]}), Some("tokens")),
    ];
    for (path, body, param) in table {
        let error = world.post(path, &body).await.error();
        assert_eq!((error.0, error.1.as_deref()), (400, param), "{path} {:.100}", body.to_string());
    }
    let deep = "[".repeat(200_000);
    for body in ["{", "null", r#"{"prompt": NaN}"#, "\u{0}", deep.as_str()] {
        let reply = world.send(Method::POST, "/v1/completions", &[], body.to_owned()).await;
        assert_eq!(reply.error(), (400, None, Some("invalid_json".into())));
    }
    assert_eq!(engine.calls(), 0);
}

#[tokio::test]
async fn wrong_paths_methods_models_and_sizes_have_their_own_status() {
    let engine = Fake::start("d", Role::Mixed);
    let limits = Limits { body_bytes: 10_000, ..Limits::default() };
    let world = World::with(&[("d", &engine)], Setup { limits, ..Setup::default() }).await;
    assert_eq!(world.get("/v1/nothing").await.error().2.as_deref(), Some("unknown_url"));
    let reply = world.get("/v1/chat/completions").await;
    assert_eq!((reply.error().0, reply.headers["allow"].to_str().ok()), (405, Some("POST")));
    assert_eq!(world.post("/v1/completions", &completion(&json!({"model": "gpt-17"}))).await.error().0, 404);
    for size in [10_001, 140_000, 3_000_000] {
        let reply = world.send(Method::POST, "/v1/completions", &[], " ".repeat(size)).await;
        assert_eq!(reply.error(), (413, None, Some("request_too_large".into())));
    }
}

#[tokio::test]
async fn headers_that_are_too_many_too_large_or_too_slow_are_refused() {
    let limits = Limits { header_timeout: Duration::from_millis(300), ..Limits::default() };
    let world = World::with(&[], Setup { limits, ..Setup::default() }).await;
    for (head, status) in [
        (format!("GET /health HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(100)), "HTTP/1.1 431"),
        (format!("GET /health HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "b".repeat(100_000)), "HTTP/1.1 431"),
        ("GET /health HTTP/1.1\r\nhos".to_owned(), "HTTP/1.1 408"),
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ] {
        let mut socket = TcpStream::connect(world.address).await.expect("connect");
        let _ = socket.write_all(head.as_bytes()).await;
        let mut reply = vec![];
        let read = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut reply)).await;
        assert!(read.is_ok(), "the connection stays open after {head:.40}");
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.starts_with(status) || reply.is_empty(), "{head:.40}: {reply}");
    }
}

#[tokio::test]
async fn keys_guard_every_route_that_does_not_declare_itself_open() {
    let engine = Fake::start("d", Role::Mixed);
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(&file, "sk-0123456789abcdef").expect("write");
    let keys = Some(ApiKeys::read(file.path()).expect("keys"));
    let world = World::with(&[("d", &engine)], Setup { keys, ..Setup::default() }).await;
    let open: Vec<&str> =
        ROUTES.iter().filter(|(_, access)| *access == Access::Open).map(|(path, _)| *path).collect();
    assert_eq!(open, ["/health", "/ready", "/health_generate", "/metrics"]);
    let unknown = [("/v1/nothing", Access::Key), ("/admin", Access::Key), ("//v1/models", Access::Key)];
    for (path, access) in ROUTES.into_iter().chain(unknown) {
        let path = path.replace("{id}", MODEL);
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            let denied = world.send(method.clone(), &path, &[], "{}").await.status == 401;
            assert_eq!(denied, access == Access::Key, "{method} {path}");
            let wrong = world
                .send(method.clone(), &path, &[("authorization", "Bearer sk-0123456789abcdeg")], "{}")
                .await;
            assert_eq!(wrong.status == 401, access == Access::Key, "{method} {path}");
        }
        let right = [("authorization", "Bearer sk-0123456789abcdef")];
        assert_ne!(world.send(Method::GET, &path, &right, "").await.status, 401, "{path}");
    }
    assert_eq!(engine.calls(), 1, "only the open probe reached the engine");
}

#[tokio::test]
async fn one_stream_too_many_is_a_429_within_milliseconds_and_the_others_finish() {
    let engine = Fake::start("d", Role::Mixed);
    engine.pace(10);
    let limits = Limits { streams: 2, ..Limits::default() };
    let world = World::with(&[("d", &engine)], Setup { limits, ..Setup::default() }).await;
    let body = completion(&json!({"stream": true, "max_tokens": 40}));
    let mut running =
        [world.stream("/v1/completions", &body).await, world.stream("/v1/completions", &body).await];
    let begun = Instant::now();
    let reply = world.post("/v1/completions", &body).await;
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    assert_eq!((reply.error().0, reply.headers["retry-after"].to_str().ok()), (429, Some("1")));
    let two = completion(&json!({"prompt": ["a", "b", "c"]}));
    assert_eq!(world.post("/v1/completions", &two).await.status, 429);
    for stream in &mut running {
        assert_eq!(stream.rest().await.text(0), text(7, 0, 40));
    }
    until("the places are free", || world.metrics.streams_open.get() == 0).await;
    assert_eq!(world.post("/v1/completions", &completion(&json!({}))).await.status, 200);
    assert_eq!(world.metrics.shed.with_label_values(&["streams"]).get(), 2);
}

#[tokio::test]
async fn one_connection_too_many_is_a_503() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let world = World::with(&[], Setup { limits, ..Setup::default() }).await;
    let first = TcpStream::connect(world.address).await.expect("connect");
    until("it is counted", || world.metrics.connections_open.get() == 1).await;
    let mut second = TcpStream::connect(world.address).await.expect("connect");
    let mut reply = String::new();
    second.read_to_string(&mut reply).await.expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 503"), "{reply}");
    drop(first);
    until("it is gone", || world.metrics.connections_open.get() == 0).await;
    assert_eq!(world.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_ended_and_delays_nobody() {
    let engine = Fake::start("d", Role::Mixed);
    let limits = Limits { reader_timeout: Duration::from_millis(500), choices: 16, ..Limits::default() };
    let world = World::with(&[("d", &engine)], Setup { limits, ..Setup::default() }).await;
    let body = completion(&json!({"stream": true, "max_tokens": 4000, "n": 16})).to_string();
    let mut slow = TcpStream::connect(world.address).await.expect("connect");
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    slow.write_all(head.as_bytes()).await.expect("write");
    until("it runs", || engine.calls() == 1).await;
    let begun = Instant::now();
    for _ in 0..20 {
        let answer = world.post("/v1/completions", &completion(&json!({}))).await;
        assert_eq!(answer.json()["choices"][0]["text"], text(7, 0, 8));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    until("the slow one is ended", || world.metrics.disconnects.get() == 1).await;
    until("its work stopped", || engine.script.streams.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_work_at_once() {
    let engine = Fake::start("d", Role::Mixed);
    engine.pace(10);
    let world = World::new(&[("d", &engine)]).await;
    for stream in [true, false] {
        let calls = engine.calls();
        let body = completion(&json!({"stream": stream, "max_tokens": 3000})).to_string();
        let mut client = TcpStream::connect(world.address).await.expect("connect");
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        client.write_all(head.as_bytes()).await.expect("write");
        let sent = || engine.script.tokens_sent.load(Ordering::Relaxed);
        let before = sent();
        until("it runs", || engine.calls() > calls && sent() > before + 2).await;
        drop(client);
        let left = Instant::now();
        until("the engine stopped", || engine.script.streams.load(Ordering::Relaxed) == 0).await;
        assert!(left.elapsed() < Duration::from_millis(500), "stream {stream}: {:?}", left.elapsed());
        until("its place is free", || world.metrics.streams_open.get() == 0).await;
    }
    until("aborts arrived", || engine.script.aborts.load(Ordering::Relaxed) == 2).await;
}

#[tokio::test]
async fn shutting_down_finishes_streams_and_after_the_grace_ends_them_with_a_typed_error() {
    for (grace, finishes) in [(Duration::from_secs(10), true), (Duration::from_millis(100), false)] {
        let engine = Fake::start("d", Role::Mixed);
        engine.pace(10);
        let world = World::with(&[("d", &engine)], Setup { grace, ..Setup::default() }).await;
        let mut stream =
            world.stream("/v1/completions", &completion(&json!({"stream": true, "max_tokens": 100}))).await;
        let first = stream.next().await.expect("an event");
        world.stage.send_replace(Stage::Finishing);
        let mut events = stream.rest().await;
        events.0.insert(0, first);
        if finishes {
            assert!(events.is_done());
            assert_eq!(events.text(0), text(7, 0, 100));
        } else {
            let error = events.error().expect("a typed error");
            assert_eq!(error["error"]["code"], "unavailable");
        }
        assert!(TcpStream::connect(world.address).await.is_err(), "nobody new is let in");
        tokio::time::timeout(Duration::from_secs(5), world.server).await.expect("it ends").expect("no panic");
    }
}
