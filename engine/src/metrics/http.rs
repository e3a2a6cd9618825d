//! `GET /metrics` over plain HTTP, on a port of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::instance::Instance;

/// Readers at the same time; more wait in the listen queue.
const CONNECTIONS: usize = 16;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection, with all its requests, lives at most this long.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until dropped.
pub async fn serve(listener: TcpListener, instance: Arc<Instance>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a metrics connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let instance = Arc::clone(&instance);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let response = answer(&request, &instance);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), answer);
            // A reader that breaks off is no event worth a word.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, instance: &Instance) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n".into());
    }
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed\n".into());
    }
    match instance.metrics.render(instance) {
        Ok(text) => plain(StatusCode::OK, text.into()),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n").into()),
    }
}

fn plain(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}
