//! A gateway served in this process over fake engines, and a client for it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use shoal_checkpoint::{DType, SyntheticModel};
use shoal_gateway::fleet::{Fleet, Placement};
use shoal_gateway::http::app::{App, Parts};
use shoal_gateway::http::keys::ApiKeys;
use shoal_gateway::http::routes;
use shoal_gateway::http::server::{Stage, serve};
use shoal_gateway::limits::Limits;
use shoal_gateway::metrics::Metrics;
use shoal_gateway::route::{Policy, Router};
use shoal_gateway::text::{TextLimits, TextModel};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fake::{Fake, secret};

pub(crate) const MODEL: &str = "synthetic";
/// Longer than anything here takes; a test that reaches it fails.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) server: JoinHandle<()>,
    client: Client<HttpConnector, Full<Bytes>>,
}

pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) policy: Policy,
    pub(crate) keys: Option<ApiKeys>,
    pub(crate) request_timeout: Duration,
    pub(crate) grace: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        let policy = Policy {
            placement: shoal_gateway::route::Placement::Auto,
            stall: Duration::from_secs(1),
            failover_wait: Duration::from_secs(5),
            arrival_wait: Duration::from_millis(500),
        };
        let (request_timeout, grace) = (DEADLINE, Duration::from_secs(5));
        Self { limits: Limits::default(), policy, keys: None, request_timeout, grace }
    }
}

/// The text side of a synthetic model: real tokenizer, real template, no weights that mean anything.
pub(crate) fn text() -> Arc<TextModel> {
    static TEXT: OnceLock<Arc<TextModel>> = OnceLock::new();
    Arc::clone(TEXT.get_or_init(|| {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("model.gguf");
        SyntheticModel::smollm().write_gguf(&path, DType::F32).expect("model");
        Arc::new(TextModel::open(&path, MODEL, TextLimits::default()).expect("text"))
    }))
}

impl World {
    pub(crate) async fn new(engines: &[(&str, &Fake)]) -> Self {
        Self::with(engines, Setup::default()).await
    }

    /// Serves over `engines`, all of which are known when this returns.
    pub(crate) async fn with(engines: &[(&str, &Fake)], setup: Setup) -> Self {
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let fleet = Fleet::new(secret(), None, Arc::clone(&metrics));
        fleet.set(placements(engines));
        let stage = watch::Sender::new(Stage::Serving);
        let limits = Arc::new(setup.limits);
        let app = App::new(Parts {
            model: MODEL.to_owned(),
            text: text(),
            router: Router::new(Arc::clone(&fleet), setup.policy),
            limits: Arc::clone(&limits),
            keys: setup.keys,
            request_timeout: setup.request_timeout,
            stage: stage.subscribe(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let router = routes::router(app);
        let server =
            tokio::spawn(serve(listener, router, limits, Arc::clone(&metrics), stage.clone(), setup.grace));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let world = Self { address, fleet, metrics, stage, server, client };
        world.knows(engines.len()).await;
        world
    }

    /// Waits until `count` instances have reported.
    pub(crate) async fn knows(&self, count: usize) {
        let heard = || self.fleet.instances().iter().filter(|instance| instance.live().is_some()).count();
        until("the engines are known", || heard() == count).await;
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        Reply::read(self.open(method, path, headers, body).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, &[], body.to_string()).await
    }

    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Stream {
        let response = self.open(Method::POST, path, &[], body.to_string()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        Stream { body: response.into_body(), buffer: String::new() }
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("request");
        tokio::time::timeout(DEADLINE, self.client.request(request))
            .await
            .expect("an answer in time")
            .expect("an answer")
    }
}

pub(crate) fn placements(engines: &[(&str, &Fake)]) -> Vec<Placement> {
    engines
        .iter()
        .map(|(name, fake)| Placement {
            name: (*name).to_owned(),
            grpc: fake.address.to_string(),
            plain: false,
        })
        .collect()
}

/// Waits for a condition; fails with its name.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "not in time: {what}");
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body =
            tokio::time::timeout(DEADLINE, body.collect()).await.expect("a body in time").expect("a body");
        Self { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// Status, `param` and `code` of an error.
    pub(crate) fn error(&self) -> (u16, Option<String>, Option<String>) {
        let json = self.json();
        let field = |name: &str| json["error"][name].as_str().map(str::to_owned);
        assert!(field("message").is_some_and(|m| !m.is_empty()) && field("type").is_some(), "{json}");
        (self.status, field("param"), field("code"))
    }
}

/// Server-sent events, one at a time.
pub(crate) struct Stream {
    body: Incoming,
    buffer: String,
}

impl Stream {
    /// The next event's (name, data); none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let event = &self.buffer[..end];
                let line = |prefix: &str| {
                    event.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned)
                };
                let parsed = (line("event: ").unwrap_or_default(), line("data: ").expect("data"));
                self.buffer.drain(..end + 2);
                return Some(parsed);
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("an event in time")?;
            let data = frame.expect("a frame").into_data().expect("data");
            self.buffer.push_str(std::str::from_utf8(&data).expect("text"));
        }
    }

    /// Reads to the end.
    pub(crate) async fn rest(&mut self) -> Events {
        let mut events = vec![];
        while let Some(event) = self.next().await {
            events.push(event);
        }
        Events(events)
    }
}

pub(crate) struct Events(pub(crate) Vec<(String, String)>);

impl Events {
    /// Data of all events but `[DONE]`.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let data = self.0.iter().filter(|(_, data)| data != "[DONE]");
        data.map(|(_, data)| serde_json::from_str(data).expect("JSON")).collect()
    }

    /// Text of one choice, chat or completions.
    pub(crate) fn text(&self, choice: u64) -> String {
        let chunks = self.chunks();
        let choices =
            chunks.iter().flat_map(|chunk| chunk["choices"].as_array().cloned().unwrap_or_default());
        choices
            .filter(|c| c["index"] == choice)
            .filter_map(|c| c["text"].as_str().or_else(|| c["delta"]["content"].as_str()).map(str::to_owned))
            .collect()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.0.last().is_some_and(|(_, data)| data == "[DONE]")
    }

    /// The typed error that ended the stream.
    pub(crate) fn error(&self) -> Option<Value> {
        let (name, data) = self.0.last()?;
        (name == "error").then(|| serde_json::from_str(data).expect("JSON"))
    }
}
