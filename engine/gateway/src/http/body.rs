//! Bodies in, bodies out: bounded reading with a deadline, and an event stream that writes what has piled
//! up in one go.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{Semaphore, mpsc};

use super::error::ApiError;
use crate::limits::{INLINE_BYTES, Limits};

/// Pieces written with one call at most.
const COALESCED: usize = 64;

/// Reads a request body whole.
pub async fn read(body: Body, limits: &Limits) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::body_too_large(limits.body_bytes);
    if axum::body::HttpBody::size_hint(&body).lower() > limits.body_bytes as u64 {
        return Err(too_large());
    }
    let collected = Limited::new(body, limits.body_bytes).collect();
    match tokio::time::timeout(limits.body_timeout, collected).await {
        Err(_) => Err(ApiError::body_timeout()),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(ApiError::malformed(format!("the body broke off: {error}"))),
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

/// Pieces of a response, in order. Ends when the sender is dropped; dropping it tells the sender.
#[derive(Debug)]
pub struct Pieces(mpsc::Receiver<Bytes>, Vec<Bytes>);

impl Pieces {
    pub fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self(receiver, Vec::with_capacity(COALESCED))
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self(receiver, ready) = &mut *self;
        let count = ready!(receiver.poll_recv_many(cx, ready, COALESCED));
        let next = match count {
            0 => None,
            1 => ready.pop(),
            _ => {
                let mut joined = BytesMut::with_capacity(ready.iter().map(Bytes::len).sum());
                ready.drain(..).for_each(|piece| joined.extend_from_slice(&piece));
                Some(joined.freeze())
            }
        };
        Poll::Ready(next.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn pieces_that_piled_up_are_one_write_and_keep_their_order() {
        let (sender, receiver) = mpsc::channel(8);
        for piece in ["a", "b", "c"] {
            sender.send(Bytes::from(piece)).await.expect("open");
        }
        let mut pieces = Pieces::new(receiver);
        assert_eq!(pieces.next().await, Some(Ok(Bytes::from("abc"))));
        sender.send(Bytes::from("d")).await.expect("open");
        drop(sender);
        assert_eq!(pieces.next().await, Some(Ok(Bytes::from("d"))));
        assert_eq!(pieces.next().await, None);
    }
}
