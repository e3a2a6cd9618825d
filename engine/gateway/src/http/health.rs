//! Three questions kept apart: is the process alive, can this replica serve, does the fleet generate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shoal_wire::rpc::Sampling;
use tokio::sync::Mutex;

use super::app::App;
use super::error::ApiError;
use crate::route::random::random_u64;
use crate::route::{Job, Output, Placement, Session, Summary};

/// How long one token may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// A result serves everybody who asks within this time, so that probes cannot load the fleet.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
struct Status {
    status: &'static str,
}

/// Liveness: cheap, and independent of the fleet.
pub(super) async fn health() -> Response {
    axum::Json(Status { status: "ok" }).into_response()
}

/// Readiness: a decode instance is known and this process is not shutting down.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    if !app.is_serving() {
        return ApiError::unavailable("this gateway is shutting down").into_response();
    }
    if !app.router.can_serve() {
        return ApiError::unavailable("no decode instance is known to be ready").into_response();
    }
    axum::Json(Status { status: "ready" }).into_response()
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.router.fleet.publish();
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, content_type)], app.metrics.render()).into_response()
}

/// The last generation, and the lock that makes it one at a time.
#[derive(Debug, Default)]
pub(super) struct Probe(Mutex<Option<(Instant, StatusCode, Vec<u8>)>>);

#[derive(Debug, Serialize)]
struct Generated<'a> {
    status: &'static str,
    prefill_instance: &'a str,
    decode_instance: &'a str,
    kv_bytes: u64,
    milliseconds: f64,
}

/// One real token, prefilled on a prefill instance if there is one.
pub(super) async fn generate(State(app): State<Arc<App>>) -> Response {
    let mut last = app.probe.0.lock().await;
    let stale = last.as_ref().is_none_or(|(at, ..)| at.elapsed() >= FRESH);
    if stale {
        let (status, body) = probe(&app).await;
        *last = Some((Instant::now(), status, body));
    }
    let Some((_, status, body)) = &*last else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let json = HeaderValue::from_static("application/json");
    (*status, [(header::CONTENT_TYPE, json)], body.clone()).into_response()
}

async fn probe(app: &App) -> (StatusCode, Vec<u8>) {
    let begun = Instant::now();
    let job = Job {
        id: format!("probe-{:016x}", random_u64()),
        prompt: vec![app.text.bos().unwrap_or(0)],
        sampling: Sampling {
            top_p: 1.0,
            repetition_penalty: 1.0,
            max_tokens: 1,
            ignore_eos: true,
            ..Sampling::default()
        },
        choices: 1,
        salt: bytes::Bytes::new(),
        deadline: begun + DEADLINE,
        placement: Some(Placement::Remote),
    };
    let mut session = Session::new(Arc::clone(&app.router), job);
    let result = loop {
        match session.next().await {
            Some(Ok(Output::Finished { .. })) | None => break Ok(()),
            Some(Ok(_)) => {}
            Some(Err(error)) => break Err(ApiError::from(error)),
        }
    };
    match result {
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_json()),
        Ok(()) => (StatusCode::OK, report(session.summary(), begun.elapsed())),
    }
}

fn report(summary: &Summary, took: Duration) -> Vec<u8> {
    let generated = Generated {
        status: "ok",
        prefill_instance: &summary.prefill_instance,
        decode_instance: &summary.decode_instance,
        kv_bytes: summary.kv_bytes,
        milliseconds: took.as_secs_f64() * 1e3,
    };
    serde_json::to_vec(&generated).unwrap_or_default()
}
