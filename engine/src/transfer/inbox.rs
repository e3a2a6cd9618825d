//! The decode side's data sockets: one thread each, from the handshake to the end of the last frame.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shoal_wire::frame::{HEADER_BYTES, PageHeader};
use tokio::net::TcpListener;

use super::handshake;
use super::payload::scatter;
use super::socket::{fill, fill_all, prepare};
use super::table::{Claim, RefusedFrame, TransferTable};

/// One frame takes at most this long from its first byte to its last.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// A socket without frames is closed after this long; senders close theirs earlier.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Pause after a failed accept, when the process has run out of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Ceilings on data sockets accepted.
#[derive(Debug, Clone, Copy)]
pub struct InboxLimits {
    /// Sockets that proved themselves.
    pub sockets: usize,
    /// Sockets still in their handshake.
    pub handshakes: usize,
}

impl Default for InboxLimits {
    fn default() -> Self {
        Self { sockets: 128, handshakes: 16 }
    }
}

#[derive(Debug)]
struct Shared {
    table: Arc<TransferTable>,
    key: [u8; 32],
    limits: InboxLimits,
    sockets: AtomicUsize,
    handshakes: AtomicUsize,
    closing: AtomicBool,
}

/// The listening data socket. Dropping it stops accepting and ends the receiving threads.
#[derive(Debug)]
pub struct Inbox {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl Inbox {
    pub fn start(
        listener: TcpListener,
        key: [u8; 32],
        table: Arc<TransferTable>,
        limits: InboxLimits,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            table,
            key,
            limits,
            sockets: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { shared, address, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Data sockets open now, those in their handshake included.
    pub fn sockets(&self) -> usize {
        self.shared.sockets.load(Ordering::Relaxed) + self.shared.handshakes.load(Ordering::Relaxed)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let started = Place::take(&shared, |s| &s.handshakes, shared.limits.handshakes)
                    .ok_or_else(|| io::Error::other("too many data sockets in their handshake"))
                    .and_then(|place| serve_in_thread(stream, place));
                if let Err(error) = started {
                    tracing::warn!(%peer, %error, "data socket refused");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a data socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve_in_thread(stream: tokio::net::TcpStream, place: Place) -> io::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let thread = std::thread::Builder::new().name("kv-receive".to_owned());
    thread.spawn(move || serve(stream, place)).map(drop)
}

fn serve(mut stream: TcpStream, handshaking: Place) {
    let peer = stream.peer_addr().map_or_else(|_| "unknown".to_owned(), |peer| peer.to_string());
    let shared = Arc::clone(&handshaking.shared);
    if let Err(error) = prepare(&stream).and_then(|()| handshake::as_server(&mut stream, &shared.key)) {
        tracing::warn!(peer, %error, "data socket refused");
        return;
    }
    let Some(_place) = Place::take(&shared, |s| &s.sockets, shared.limits.sockets) else {
        tracing::warn!(peer, limit = shared.limits.sockets, "too many data sockets");
        return;
    };
    drop(handshaking);
    match receive_frames(&mut stream, &shared) {
        Ok(()) => tracing::debug!(peer, "data socket closed"),
        Err(error) => tracing::warn!(peer, %error, "data socket ended"),
    }
}

/// One of a bounded number of places, given back on drop.
struct Place {
    shared: Arc<Shared>,
    counter: fn(&Shared) -> &AtomicUsize,
}

impl Place {
    fn take(shared: &Arc<Shared>, counter: fn(&Shared) -> &AtomicUsize, limit: usize) -> Option<Self> {
        counter(shared)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1))
            .ok()?;
        Some(Self { shared: Arc::clone(shared), counter })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.counter)(&self.shared).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends with `Ok` when the peer closes between frames or stays idle.
fn receive_frames(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let mut scratch = Vec::new();
    while let Some(header) = next_header(stream, shared)? {
        let begun = Instant::now();
        match shared.table.claim(&header) {
            Ok(claim) => receive_page(stream, shared, claim, &header, &mut scratch)?,
            Err(reason) => {
                refuse(shared, &header, reason);
                discard(stream, header.payload_bytes, begun)?;
            }
        }
    }
    Ok(())
}

fn next_header(stream: &mut TcpStream, shared: &Shared) -> io::Result<Option<PageHeader>> {
    let mut bytes = [0; HEADER_BYTES];
    let idle_since = Instant::now();
    let waiting = || !shared.closing.load(Ordering::Acquire) && idle_since.elapsed() < IDLE_TIMEOUT;
    match fill(stream, &mut bytes[..1], waiting) {
        Ok(0) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let begun = Instant::now();
    fill_all(stream, &mut bytes[1..], || begun.elapsed() < FRAME_TIMEOUT)?;
    // Bytes after a header that breaks the limits cannot be trusted to be a frame: the socket ends.
    PageHeader::decode(&bytes).map(Some).map_err(|error| {
        shared.table.count_refused(RefusedFrame::Oversized);
        io::Error::new(ErrorKind::InvalidData, error)
    })
}

fn receive_page(
    stream: &mut TcpStream,
    shared: &Shared,
    mut claim: Claim,
    header: &PageHeader,
    scratch: &mut Vec<u8>,
) -> io::Result<()> {
    let begun = Instant::now();
    let wanted = header.payload_bytes as usize;
    let whole_page = wanted == claim.page.len();
    if !whole_page {
        // The claim checked the length against the page's.
        scratch.resize(wanted, 0);
    }
    let closed = claim.closed_flag();
    let go_on = || !closed.load(Ordering::Acquire) && begun.elapsed() < FRAME_TIMEOUT;
    let target = if whole_page { &mut claim.page[..] } else { &mut scratch[..] };
    let filled = fill(stream, target, go_on)
        .inspect_err(|_| shared.table.fail(header.transfer, "the data socket was cut"))?;
    if filled < wanted {
        drop(claim);
        return stopped_early(stream, shared, header, wanted - filled, begun);
    }
    if PageHeader::checksum_of(header.transfer, target) != header.checksum {
        drop(claim);
        refuse(shared, header, RefusedFrame::Corrupt);
        shared.table.fail(header.transfer, "a page arrived corrupt");
        return Ok(());
    }
    if !whole_page {
        let tokens = claim.tokens;
        scatter(shared.table.geometry(), scratch, tokens, &mut claim.page);
    }
    let seconds = begun.elapsed().as_secs_f32();
    shared.table.rate.record(wanted as f32 / seconds.max(1e-6));
    if let Err(reason) = shared.table.land(claim, header.payload_bytes) {
        refuse(shared, header, reason);
    }
    Ok(())
}

/// The page was let go before its payload ended: either nobody waits for it any more, or the peer stalled.
fn stopped_early(
    stream: &mut TcpStream,
    shared: &Shared,
    header: &PageHeader,
    rest: usize,
    begun: Instant,
) -> io::Result<()> {
    if begun.elapsed() >= FRAME_TIMEOUT {
        shared.table.fail(header.transfer, "the data socket stalled");
        return Err(ErrorKind::TimedOut.into());
    }
    refuse(shared, header, RefusedFrame::Late);
    discard(stream, rest as u64, begun)
}

fn refuse(shared: &Shared, header: &PageHeader, reason: RefusedFrame) {
    shared.table.count_refused(reason);
    let (slot, first_token) = (header.slot, header.first_token);
    tracing::debug!(reason = reason.name(), slot, first_token, "page frame refused");
}

/// Reads a refused payload to its end, so that the next header is found.
fn discard(stream: &mut TcpStream, bytes: u64, begun: Instant) -> io::Result<()> {
    let mut sink = [0; 16 << 10];
    let mut rest = bytes as usize;
    while rest > 0 {
        let part = rest.min(sink.len());
        fill_all(stream, &mut sink[..part], || begun.elapsed() < FRAME_TIMEOUT)?;
        rest -= part;
    }
    Ok(())
}
