//! One lane: a thread that takes queued pages of one peer and writes them to one socket.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shoal_wire::frame::PageHeader;

use super::{Queued, Shared};
use crate::transfer::handshake;
use crate::transfer::payload::gather;
use crate::transfer::socket::{prepare, write_both};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// One frame takes at most this long to be handed to the kernel.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// A frame of a cancelled transfer is finished within this time, so that the socket can be used again;
/// after it the socket is closed.
const CANCEL_GRACE: Duration = Duration::from_millis(250);

/// Queues a page and opens a lane if none is free for it.
pub(super) fn enqueue(shared: &Arc<Shared>, address: &Arc<str>, queued: Queued) -> io::Result<()> {
    let mut peers = shared.peers.lock();
    peers.retain(|_, peer| peer.lanes > 0 || !peer.waiting.is_empty());
    let lanes: usize = peers.values().map(|peer| peer.lanes).sum();
    let peer = peers.entry(Arc::clone(address)).or_default();
    let may_open = peer.lanes < shared.limits.lanes_per_peer && lanes < shared.limits.lanes;
    if peer.lanes == 0 && !may_open {
        return Err(io::Error::other("all data sockets of this instance are in use"));
    }
    peer.waiting.push_back(queued);
    if peer.free >= peer.waiting.len() {
        peer.wake.notify_one();
    } else if may_open {
        let (shared, address) = (Arc::clone(shared), Arc::clone(address));
        let thread = std::thread::Builder::new().name("kv-send".to_owned());
        match thread.spawn(move || run(&shared, &address)) {
            Ok(_) => peer.lanes += 1,
            Err(error) if peer.lanes == 0 => {
                peer.waiting.clear();
                return Err(error);
            }
            Err(error) => tracing::warn!(%error, "cannot start another data lane"),
        }
    }
    Ok(())
}

fn run(shared: &Arc<Shared>, address: &Arc<str>) {
    let mut socket = None;
    let mut scratch = Vec::new();
    while let Some(queued) = next(shared, address) {
        if queued.transfer.is_cancelled() {
            continue;
        }
        match send(shared, address, &mut socket, &queued, &mut scratch) {
            Ok(payload_bytes) => {
                let Queued { job, transfer } = queued;
                drop(job);
                shared.payload_bytes.fetch_add(payload_bytes, Ordering::Relaxed);
                transfer.sent(payload_bytes);
            }
            Err(error) => {
                socket = None;
                tracing::warn!(peer = %address, %error, "cannot send a page");
                queued.transfer.fail(&error);
            }
        }
    }
}

/// Takes the next page; `None` ends the lane.
fn next(shared: &Shared, address: &Arc<str>) -> Option<Queued> {
    let until = Instant::now() + shared.limits.idle;
    let mut peers = shared.peers.lock();
    loop {
        let peer = peers.get_mut(address)?;
        if let Some(queued) = peer.waiting.pop_front() {
            return Some(queued);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.closing.load(Ordering::Acquire) {
            peer.lanes -= 1;
            return None;
        }
        peer.free += 1;
        let wake = Arc::clone(&peer.wake);
        wake.wait_for(&mut peers, left);
        if let Some(peer) = peers.get_mut(address) {
            peer.free -= 1;
        }
    }
}

/// Writes one frame, over the lane's socket if it still stands; returns the payload's bytes.
fn send(
    shared: &Arc<Shared>,
    address: &str,
    socket: &mut Option<Socket>,
    queued: &Queued,
    scratch: &mut Vec<u8>,
) -> io::Result<u64> {
    if !socket.as_ref().is_some_and(Socket::is_alive) {
        *socket = None;
    }
    let socket = match socket {
        Some(socket) => socket,
        None => socket.insert(Socket::connect(shared, address)?),
    };
    let geometry = &shared.geometry;
    let job = &queued.job;
    let payload: &[u8] = if job.tokens == geometry.page_tokens {
        &job.page
    } else {
        scratch.clear();
        gather(geometry, &job.page, job.tokens, scratch);
        scratch
    };
    let header = PageHeader {
        transfer: queued.transfer.id,
        slot: job.slot.page,
        generation: job.slot.generation,
        first_token: job.first_token as u32,
        tokens: job.tokens as u32,
        payload_bytes: payload.len() as u64,
        checksum: PageHeader::checksum_of(queued.transfer.id, payload),
    };
    let begun = Instant::now();
    let cancelled_at = Cell::new(None);
    write_both(&mut socket.stream, &header.encode(), payload, || {
        if queued.transfer.is_cancelled() && cancelled_at.get().is_none() {
            cancelled_at.set(Some(Instant::now()));
        }
        let patient = cancelled_at.get().is_none_or(|at| at.elapsed() < CANCEL_GRACE);
        patient && begun.elapsed() < FRAME_TIMEOUT
    })?;
    shared.rate.record(payload.len() as f32 / begun.elapsed().as_secs_f32().max(1e-6));
    Ok(payload.len() as u64)
}

/// A connected and proven data socket.
struct Socket {
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl Socket {
    fn connect(shared: &Arc<Shared>, address: &str) -> io::Result<Self> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the data address has no IP address");
        for resolved in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&resolved, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    shared.sockets.fetch_add(1, Ordering::Relaxed);
                    let mut socket = Self { stream, shared: Arc::clone(shared) };
                    prepare(&socket.stream)?;
                    handshake::as_client(&mut socket.stream, &shared.key)?;
                    return Ok(socket);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The receiver never sends after the handshake: anything readable is the end of the stream.
    fn is_alive(&self) -> bool {
        let idle = |stream: &TcpStream| {
            stream.set_nonblocking(true)?;
            let peeked = stream.peek(&mut [0]);
            stream.set_nonblocking(false)?;
            Ok::<_, io::Error>(matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock))
        };
        idle(&self.stream).unwrap_or(false)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shared.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}
