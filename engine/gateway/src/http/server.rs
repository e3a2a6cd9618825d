//! Accepts connections, each with its own limits, and ends them in order.
//!
//! ```text
//! Serving ── first signal ──> Finishing (no new connections; streams run to their end)
//!         ── grace over ────> Ending (streams end with a typed error) ──> closed
//! ```

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt as _;

use super::patience::Patient;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// Bytes hyper holds for a reader that lags, and the most it reads ahead.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes the kernel holds for a reader that lags. Left to itself it takes megabytes, and a stream that nobody
/// reads would run on until they are full.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// What a connection over the cap is told.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 121\r\n\r\n\
{\"error\":{\"message\":\"this server has too many open connections\",\"type\":\"server_error\",\"param\":null,\"code\":\"unavailable\"}}";
/// Time between Ending and closing whatever is left, for the typed errors to go out.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Pause after a failed accept (out of descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Serving,
    Finishing,
    Ending,
}

/// Waits for a stage or a later one.
pub async fn reached(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    if stage.wait_for(|stage| *stage >= wanted).await.is_err() {
        // The server is gone without a word: nobody will change the stage any more.
        std::future::pending::<()>().await;
    }
}

/// Serves until `stage` leaves Serving, then until every connection ended or `grace` and the last words
/// are over.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    stage: watch::Sender<Stage>,
    grace: Duration,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut stopping = stage.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = reached(&mut stopping, Stage::Finishing) => break,
        };
        match accepted {
            Ok((socket, _)) => admit(socket, &router, &limits, &metrics, &slots, &stage),
            Err(error) => pause_after(&error).await,
        }
    }
    drop(listener);
    let all = limits.connections as u32;
    if tokio::time::timeout(grace, slots.acquire_many(all)).await.is_err() {
        tracing::warn!("streams did not finish in time; they end with an error");
        stage.send_replace(Stage::Ending);
        let _ = tokio::time::timeout(LAST_WORDS, slots.acquire_many(all)).await;
    }
}

fn admit(
    socket: TcpStream,
    router: &Router,
    limits: &Arc<Limits>,
    metrics: &Arc<Metrics>,
    slots: &Arc<Semaphore>,
    stage: &watch::Sender<Stage>,
) {
    let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
        metrics.shed.with_label_values(&["connections"]).inc();
        // Best effort and never waited for: a full server spends nothing on those it turns away.
        let _ = socket.try_write(FULL);
        return;
    };
    metrics.connections_open.inc();
    let metrics = Arc::clone(metrics);
    let task = connection(socket, router.clone(), Arc::clone(limits), stage.subscribe(), slot);
    tokio::spawn(async move {
        task.await;
        metrics.connections_open.dec();
    });
}

async fn connection(
    socket: TcpStream,
    router: Router,
    limits: Arc<Limits>,
    mut stage: watch::Receiver<Stage>,
    _slot: OwnedSemaphorePermit,
) {
    // Tokens are small and must not wait for more of them.
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER_BYTES);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(unwrap_infallible(router.oneshot(request).await)) }
    });
    let io = TokioIo::new(Patient::new(socket, limits.reader_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .max_buf_size(BUFFER_BYTES.max(limits.header_bytes))
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = reached(&mut stage, Stage::Finishing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn unwrap_infallible<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canned_refusal_states_its_own_length() {
        let text = std::str::from_utf8(FULL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
