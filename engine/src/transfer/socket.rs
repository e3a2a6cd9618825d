//! Blocking sockets that nobody can hold for ever.
//!
//! Reads and writes wake every [`TICK`], so that a deadline or an abort is noticed while the peer is silent.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// How late a deadline or an abort may be noticed.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// After this long without an acknowledgement the kernel gives the peer up.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// Sets what every data socket has: no delay, keepalive, a bound on unacknowledged data, and the tick.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(PEER_TIMEOUT).with_interval(PEER_TIMEOUT / 4);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(TICK))
}

/// Reads until the buffer is full or `go_on` says no; returns the bytes read. The end of the stream inside
/// the buffer is an error.
pub(super) fn fill(stream: &mut TcpStream, buffer: &mut [u8], go_on: impl Fn() -> bool) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() && go_on() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if is_tick(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// As [`fill`], but stopping early is `TimedOut`.
pub(super) fn fill_all(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    go_on: impl Fn() -> bool,
) -> io::Result<()> {
    if fill(stream, buffer, go_on)? < buffer.len() { Err(ErrorKind::TimedOut.into()) } else { Ok(()) }
}

/// Writes a head and a body, in as few system calls as the socket takes. `TimedOut` if `go_on` says no.
pub(super) fn write_both(
    stream: &mut TcpStream,
    head: &[u8],
    body: &[u8],
    go_on: impl Fn() -> bool,
) -> io::Result<()> {
    let mut parts = [IoSlice::new(head), IoSlice::new(body)];
    let mut rest = &mut parts[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        if !go_on() {
            return Err(ErrorKind::TimedOut.into());
        }
        match stream.write_vectored(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut rest, count),
            Err(error) if is_tick(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
