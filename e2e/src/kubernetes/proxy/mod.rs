//! Stands between an operator and the API server, counts what is written, and disturbs it as a plan says.
//!
//! ```text
//! operator ──http, loopback──> Proxy ──https──> API server
//!     ^                          │
//!     └────── SIGKILL ───────────┘   at the moment that the plan names
//! ```
//!
//! A write travels by itself once it was accepted here: as on a network, it arrives also when the operator that sent
//! it is dead or has given up.

mod call;
mod fault;
mod reads;
mod writes;

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::Client;
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

pub use call::{Call, Write};
pub use fault::{Fault, Moment};
use reads::View;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Error>;

/// Asks for the operator's death; answered once it is dead.
pub type Kill = oneshot::Sender<()>;

/// The connection breaks here.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection breaks here")
    }
}

impl std::error::Error for Broken {}

#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    server: Client,
    plan: Option<(Fault, Call)>,
    fired: AtomicBool,
    seen: Mutex<HashMap<Call, u32>>,
    journal: Mutex<Vec<Write>>,
    requests: AtomicUsize,
    held: AtomicUsize,
    kills: mpsc::UnboundedSender<Kill>,
    view: watch::Sender<View>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Proxy {
    /// Listens on a free port of the loopback. `server` must not try again by itself. Who receives `kills` ends the
    /// operator and starts it again.
    pub async fn start(
        server: Client,
        plan: Option<(Fault, Call)>,
        kills: mpsc::UnboundedSender<Kill>,
    ) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let shared = Arc::new(Shared {
            server,
            plan,
            fired: AtomicBool::new(false),
            seen: Mutex::default(),
            journal: Mutex::default(),
            requests: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            kills,
            view: watch::Sender::new(View::default()),
        });
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, serving })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether the call of the plan came.
    pub fn fired(&self) -> bool {
        self.shared.fired.load(Ordering::SeqCst)
    }

    /// Every write that was asked for, in order.
    pub fn journal(&self) -> Vec<Write> {
        self.shared.journal.lock().clone()
    }

    /// Requests but for watches, which begin again whenever they end.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Whether nothing but leases was written for that long, and no write is under way.
    pub fn quiet_for(&self, time: Duration) -> bool {
        let journal = self.shared.journal.lock();
        let last = journal.iter().rev().find(|write| !write.call.is_lease());
        self.shared.held.load(Ordering::SeqCst) == 0
            && last.is_none_or(|write| write.answer.is_some() && write.at.elapsed() >= time)
    }

    /// From now on lists and watches show what was true at that revision, as a server does whose watch cache lags
    /// behind; single objects and writes go to what is true now, as they do there.
    pub fn freeze(&self, revision: &str) {
        self.shared.view.send_modify(|view| view.frozen = Some(revision.to_owned()));
    }

    /// The server catches up.
    pub fn thaw(&self) {
        self.shared.view.send_modify(|view| view.frozen = None);
    }
}

impl Shared {
    async fn kill(&self) {
        let (dead, died) = oneshot::channel();
        if self.kills.send(dead).is_ok() {
            // Without an answer there is no operator any more.
            let _ = died.await;
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        // A small write is not to wait for an acknowledgement; without the option it is only slower.
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        // A connection that breaks is what some plans are about.
        tokio::spawn(
            async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await },
        );
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Broken> {
    if *request.method() == Method::GET {
        reads::answer(&shared, request).await
    } else {
        writes::answer(shared, request).await
    }
}

/// What cannot fail, as a body.
fn body<B>(inner: B) -> Body
where
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    use http_body_util::BodyExt as _;
    inner.map_err(|never| match never {}).boxed_unsync()
}
