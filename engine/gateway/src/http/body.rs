//! Bodies in: bounded reading with a deadline, and parsing where it belongs.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::header;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;

use super::error::ApiError;
use crate::limits::{INLINE_BYTES, Limits};

/// Multiples of the body limit that are read and thrown away before a refusal, because a client that still
/// writes would not see the answer.
const DISCARDED: usize = 16;

/// Reads a request body whole.
pub async fn read(request: Request, limits: &Limits) -> Result<Bytes, ApiError> {
    let waits = request.headers().contains_key(header::EXPECT);
    let mut body = request.into_body();
    let reading = collect(&mut body, limits.body_bytes);
    let whole = tokio::time::timeout(limits.body_timeout, reading).await.unwrap_or(Err(Unread::Late));
    match whole {
        Ok(bytes) => Ok(bytes),
        Err(Unread::Late) => Err(ApiError::body_timeout()),
        Err(Unread::Broken(error)) => Err(ApiError::malformed(format!("the body broke off: {error}"))),
        Err(Unread::TooLarge) => {
            // Who waits for "100 Continue" has not sent anything yet.
            if !waits {
                let discarding = discard(&mut body, limits.body_bytes.saturating_mul(DISCARDED));
                let _ = tokio::time::timeout(limits.body_timeout, discarding).await;
            }
            Err(ApiError::body_too_large(limits.body_bytes))
        }
    }
}

enum Unread {
    TooLarge,
    Late,
    Broken(axum::Error),
}

async fn collect(body: &mut Body, most: usize) -> Result<Bytes, Unread> {
    let announced = body.size_hint().lower();
    if announced > most as u64 {
        return Err(Unread::TooLarge);
    }
    let mut bytes = BytesMut::with_capacity(announced as usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(Unread::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

async fn discard(body: &mut Body, most: usize) {
    let mut seen = 0;
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, Bytes::len);
        if seen > most {
            return;
        }
    }
}

/// Bodies up to this size are handled where they arrived.
pub fn is_small(body: &Bytes) -> bool {
    body.len() <= INLINE_BYTES
}

/// Works here if it is cheap, else on a worker thread. There are few `workers`, so that large bodies wait
/// as bytes and only a few are parsed at a time.
pub async fn work<T: Send + 'static>(
    cheap: bool,
    workers: &Semaphore,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if cheap {
        return work();
    }
    let failed = || ApiError::internal("the request could not be prepared");
    let _slot = workers.acquire().await.map_err(|_| failed())?;
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(failed()))
}
