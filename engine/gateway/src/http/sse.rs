//! Server-sent events: rendering, and the body that its connection pulls.
//!
//! A reader that lags stops pulling, and events wait in the engine's stream. When it is gone the body is
//! dropped at once, and with it the generation, which aborts the work in the engines.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use super::app::App;
use super::error::ApiError;
use super::generation::{Event, Generation};
use super::server::{Stage, reached};
use crate::route::SessionError;

/// How a dialect renders the events of a stream.
pub(super) trait Dialect: Send + 'static {
    /// Appends the events of `event` to `out`.
    fn render(&mut self, event: Event, out: &mut Vec<u8>);
    /// Appends what follows the last event, before `[DONE]`.
    fn close(&mut self, generation: &Generation, out: &mut Vec<u8>);
}

/// Appends one event with JSON data.
pub(super) fn push(out: &mut Vec<u8>, data: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    // Writing plain structs to memory cannot fail.
    let _ = serde_json::to_writer(&mut *out, data);
    out.extend_from_slice(b"\n\n");
}

fn push_error(out: &mut Vec<u8>, error: &ApiError) {
    out.extend_from_slice(b"event: error\ndata: ");
    out.extend_from_slice(&error.to_json());
    out.extend_from_slice(b"\n\n");
}

/// Answers with a stream. Waits for the first event, so that what fails before it has a proper status.
pub(super) async fn respond(
    app: Arc<App>,
    mut generation: Generation,
    mut dialect: impl Dialect,
) -> Result<Response, ApiError> {
    let mut out = Vec::with_capacity(512);
    if let Some(event) = generation.next().await {
        dialect.render(event?, &mut out);
    }
    let stage = app.stage.clone();
    let feed = Feed { app, generation, dialect, stage, out, ended: false };
    let pieces = futures::stream::unfold(feed, |mut feed| async {
        let piece = feed.next().await?;
        Some((Ok::<_, Infallible>(piece), feed))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks proxies in between not to gather what is meant to be read at once.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// A stream on its way to its reader: asked for the next piece when there is room for it, dropped when the
/// reader is gone.
struct Feed<D> {
    app: Arc<App>,
    generation: Generation,
    dialect: D,
    stage: watch::Receiver<Stage>,
    /// Rendered and not handed on yet.
    out: Vec<u8>,
    ended: bool,
}

impl<D: Dialect> Feed<D> {
    async fn next(&mut self) -> Option<Bytes> {
        while self.out.is_empty() && !self.ended {
            let event = tokio::select! {
                biased;
                event = self.generation.next() => event,
                () = reached(&mut self.stage, Stage::Ending) => Some(Err(SessionError::Stopping)),
            };
            self.ended = !matches!(event, Some(Ok(_)));
            match event {
                Some(Ok(event)) => self.dialect.render(event, &mut self.out),
                Some(Err(error)) => push_error(&mut self.out, &error.into()),
                None => {
                    self.dialect.close(&self.generation, &mut self.out);
                    self.out.extend_from_slice(b"data: [DONE]\n\n");
                }
            }
        }
        (!self.out.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.out)))
    }
}

impl<D> Drop for Feed<D> {
    fn drop(&mut self) {
        if !self.ended {
            self.app.metrics.disconnects.inc();
        }
    }
}

/// Runs a generation to its end for an answer in one piece.
pub(super) async fn collect(
    app: &App,
    generation: &mut Generation,
    mut each: impl FnMut(Event),
) -> Result<(), ApiError> {
    let mut stage = app.stage.clone();
    let run = async {
        while let Some(event) = generation.next().await {
            each(event?);
        }
        Ok(())
    };
    tokio::select! {
        biased;
        result = run => result,
        () = reached(&mut stage, Stage::Ending) => Err(SessionError::Stopping.into()),
    }
}
