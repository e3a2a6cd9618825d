//! What every request shares, and the gate each one passes: id, authentication, counting.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::error::ApiError;
use super::health::Probe;
use super::keys::ApiKeys;
use super::routes::{Access, access};
use super::server::Stage;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::route::Router;
use crate::route::random::random_u64;
use crate::text::TextModel;

/// Carries the request's id in both directions.
pub const REQUEST_ID: &str = "x-request-id";
/// Bytes of a client's own request id; engines get it with a suffix.
const MAX_REQUEST_ID_BYTES: usize = 48;

#[derive(Debug)]
pub struct App {
    pub model: String,
    /// Seconds since 1970 at which this process began to serve the model.
    pub created: u64,
    pub text: Arc<TextModel>,
    pub router: Arc<Router>,
    pub limits: Arc<Limits>,
    pub metrics: Arc<Metrics>,
    pub request_timeout: Duration,
    pub stage: watch::Receiver<Stage>,
    pub(super) probe: Probe,
    /// Bodies that are parsed, tokenized or compiled off the network threads at the same time.
    pub(super) workers: Semaphore,
    keys: Option<ApiKeys>,
    streams: Arc<Semaphore>,
}

/// What a server is made of.
#[derive(Debug)]
pub struct Parts {
    pub model: String,
    pub text: Arc<TextModel>,
    pub router: Arc<Router>,
    pub limits: Arc<Limits>,
    pub keys: Option<ApiKeys>,
    pub request_timeout: Duration,
    pub stage: watch::Receiver<Stage>,
}

impl App {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { model, text, router, limits, keys, request_timeout, stage } = parts;
        Arc::new(Self {
            model,
            created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            text,
            metrics: Arc::clone(&router.metrics),
            router,
            streams: Arc::new(Semaphore::new(limits.streams)),
            limits,
            keys,
            request_timeout,
            stage,
            probe: Probe::default(),
            workers: Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)),
        })
    }

    /// Room for `prompts` more generations, or 429 at once.
    pub fn admit(&self, prompts: usize) -> Result<Permit, ApiError> {
        let slots = self.slots(prompts)?;
        Ok(Permit { slots, prompts: prompts as i64, metrics: Arc::clone(&self.metrics) })
    }

    fn slots(&self, prompts: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let slots = Arc::clone(&self.streams).try_acquire_many_owned(prompts as u32).map_err(|_| {
            self.metrics.shed.with_label_values(&["streams"]).inc();
            ApiError::overloaded(format!("{} requests are already running; try again", self.limits.streams))
        })?;
        self.metrics.streams_open.add(prompts as i64);
        Ok(slots)
    }

    /// Tokens of prompt and output together.
    pub fn context(&self) -> u32 {
        let ours = u32::try_from(self.text.max_context()).unwrap_or(u32::MAX);
        self.router.fleet.max_context().map_or(ours, |fleet| fleet.min(ours))
    }

    pub fn is_serving(&self) -> bool {
        *self.stage.borrow() == Stage::Serving
    }
}

/// A place among the concurrent streams, held until the answer's end.
#[derive(Debug)]
pub struct Permit {
    slots: OwnedSemaphorePermit,
    prompts: i64,
    metrics: Arc<Metrics>,
}

impl Permit {
    /// Takes room for `prompts` more.
    pub fn extend(&mut self, app: &App, prompts: usize) -> Result<(), ApiError> {
        self.slots.merge(app.slots(prompts)?);
        self.prompts += prompts as i64;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.metrics.streams_open.sub(self.prompts);
    }
}

/// One request as its handler sees it.
#[derive(Debug, Clone)]
pub struct Context {
    pub id: String,
    pub begun: Instant,
    /// Hash of the API key, if keys are in use.
    pub tenant: Option<blake3::Hash>,
    /// Dropped with the last of answer and handler, which is when the request's duration is known.
    _clock: Arc<Clock>,
}

#[derive(Debug)]
struct Clock {
    metrics: Arc<Metrics>,
    route: String,
    begun: Instant,
}

impl Drop for Clock {
    fn drop(&mut self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.metrics.request_seconds.with_label_values(&[&self.route]).observe(seconds);
    }
}

/// Every request goes through here, known route or not.
pub async fn gate(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let id = request_id(request.headers());
    let route = path.clone().unwrap_or_else(|| "unknown".to_owned());
    let mut response = match authorize(&app, path.as_deref(), request.headers()) {
        Err(error) => error.into_response(),
        Ok(tenant) => {
            let clock = Arc::new(Clock { metrics: Arc::clone(&app.metrics), route: route.clone(), begun });
            let context = Context { id: id.clone(), begun, tenant, _clock: Arc::clone(&clock) };
            request.extensions_mut().insert(context);
            let response = next.run(request).await;
            drop(clock);
            response
        }
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = status_class(response.status().as_u16());
    app.metrics.requests.with_label_values(&[route.as_str(), status]).inc();
    tracing::debug!(request = id, route, status = response.status().as_u16(), "answered");
    response
}

/// Deny by default: a path without a declared class needs a key like any other.
fn authorize(app: &App, path: Option<&str>, headers: &HeaderMap) -> Result<Option<blake3::Hash>, ApiError> {
    match (&app.keys, path.map_or(Access::Key, access)) {
        (None, _) | (_, Access::Open) => Ok(None),
        (Some(keys), Access::Key) => keys.check(headers).map(Some).ok_or_else(ApiError::unauthorized),
    }
}

/// The client's id if it is short and plain, else a fresh one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    given
        .filter(plain)
        .map_or_else(|| format!("req-{:016x}{:016x}", random_u64(), random_u64()), str::to_owned)
}

fn status_class(status: u16) -> &'static str {
    match status {
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500..600 => "5xx",
        _ => "1xx",
    }
}
