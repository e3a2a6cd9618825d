//! The sending half of a response stream: heartbeats while silent, bounded while the peer reads slowly.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Events;

/// Messages that wait for the peer's flow control.
const WAITING: usize = 32;
/// A peer that takes no message for this long loses its stream.
const SLOW_READER: Duration = Duration::from_secs(30);

/// Nobody reads the stream any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

pub(super) struct Replies<T> {
    messages: mpsc::Sender<Result<T, Status>>,
    heartbeat: fn() -> T,
    interval: Duration,
    last: Instant,
}

impl<T: Send + 'static> Replies<T> {
    /// A stream, and what fills it; `heartbeat` is sent whenever `interval` passed without a message.
    pub(super) fn new(interval: Duration, heartbeat: fn() -> T) -> (Self, Events<T>) {
        let (messages, receiver) = mpsc::channel(WAITING);
        let stream = ReceiverStream::new(receiver).boxed();
        (Self { messages, heartbeat, interval, last: Instant::now() }, stream)
    }

    pub(super) async fn send(&mut self, message: T) -> Result<(), Gone> {
        self.last = Instant::now();
        match timeout(SLOW_READER, self.messages.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// The stream's last message.
    pub(super) async fn fail(&mut self, status: Status) {
        let _ = timeout(SLOW_READER, self.messages.send(Err(status))).await;
    }

    /// Sends heartbeats; ends when the reader is gone. Safe to drop and call again.
    pub(super) async fn keep_alive(&mut self) -> Gone {
        loop {
            tokio::select! {
                () = self.messages.closed() => return Gone,
                () = sleep_until(self.last + self.interval) => {
                    self.last = Instant::now();
                    // A full channel means that messages are on their way anyway.
                    let _ = self.messages.try_send(Ok((self.heartbeat)()));
                }
            }
        }
    }
}
