//! Server-sent events: rendering, and the task that feeds one stream.
//!
//! The task ends with the stream, and at once when its reader is gone; dropping the generation aborts the
//! work in the engines.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

use super::app::App;
use super::body::Pieces;
use super::error::ApiError;
use super::generation::{Event, Generation};
use super::server::{Stage, reached};

/// Events of one stream that wait for its reader; further ones wait in the engine's stream.
const QUEUED: usize = 32;

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
    let mut first = Vec::with_capacity(512);
    if let Some(event) = generation.next().await {
        dialect.render(event?, &mut first);
    }
    let (sender, receiver) = mpsc::channel(QUEUED);
    tokio::spawn(async move {
        let closed = sender.clone();
        tokio::select! {
            biased;
            () = closed.closed() => app.metrics.disconnects.inc(),
            () = feed(&app, generation, dialect, first, sender) => {}
        }
    });
    let mut response = Response::new(Body::from_stream(Pieces::new(receiver)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks proxies in between not to gather what is meant to be read at once.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

async fn feed(
    app: &App,
    mut generation: Generation,
    mut dialect: impl Dialect,
    mut out: Vec<u8>,
    sender: mpsc::Sender<Bytes>,
) {
    let mut stage = app.stage.clone();
    loop {
        if !out.is_empty() && sender.send(Bytes::from(std::mem::take(&mut out))).await.is_err() {
            return;
        }
        let event = tokio::select! {
            biased;
            event = generation.next() => event,
            () = reached(&mut stage, Stage::Ending) => Some(Err(crate::route::SessionError::Stopping)),
        };
        match event {
            Some(Ok(event)) => dialect.render(event, &mut out),
            Some(Err(error)) => {
                push_error(&mut out, &error.into());
                break;
            }
            None => {
                dialect.close(&generation, &mut out);
                out.extend_from_slice(b"data: [DONE]\n\n");
                break;
            }
        }
    }
    let _ = sender.send(Bytes::from(out)).await;
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
        () = reached(&mut stage, Stage::Ending) => Err(crate::route::SessionError::Stopping.into()),
    }
}
