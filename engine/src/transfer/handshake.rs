//! Both ends of a data socket prove that they know the fleet's data key before anything else is read.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use shoal_wire::frame::{GREETING_BYTES, Greeting, PROOF_BYTES, Side, proof, proof_matches};

use super::socket::{fill_all, write_both};

/// The whole handshake takes at most this long, however slowly the peer sends.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// The prefill side, which opened the socket.
pub(super) fn as_client(stream: &mut TcpStream, key: &[u8; 32]) -> io::Result<()> {
    let in_time = deadline();
    let ours = Greeting { nonce: super::random()? };
    write_both(stream, &ours.encode(), &[], &in_time)?;
    let theirs = read_greeting(stream, &in_time)?;
    write_both(stream, &proof(key, Side::Client, &ours, &theirs), &[], &in_time)?;
    expect_proof(stream, &proof(key, Side::Server, &ours, &theirs), &in_time)
}

/// The decode side. It proves itself only after the peer did.
pub(super) fn as_server(stream: &mut TcpStream, key: &[u8; 32]) -> io::Result<()> {
    let in_time = deadline();
    let theirs = read_greeting(stream, &in_time)?;
    let ours = Greeting { nonce: super::random()? };
    write_both(stream, &ours.encode(), &[], &in_time)?;
    expect_proof(stream, &proof(key, Side::Client, &theirs, &ours), &in_time)?;
    write_both(stream, &proof(key, Side::Server, &theirs, &ours), &[], &in_time)
}

fn deadline() -> impl Fn() -> bool {
    let end = Instant::now() + HANDSHAKE_TIMEOUT;
    move || Instant::now() < end
}

fn read_greeting(stream: &mut TcpStream, in_time: &impl Fn() -> bool) -> io::Result<Greeting> {
    let mut bytes = [0; GREETING_BYTES];
    fill_all(stream, &mut bytes, in_time)?;
    Greeting::decode(&bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

fn expect_proof(
    stream: &mut TcpStream,
    expected: &[u8; PROOF_BYTES],
    in_time: &impl Fn() -> bool,
) -> io::Result<()> {
    let mut given = [0; PROOF_BYTES];
    fill_all(stream, &mut given, in_time)?;
    if proof_matches(&given, expected) {
        Ok(())
    } else {
        Err(io::Error::new(ErrorKind::PermissionDenied, "the peer does not know this fleet's secret"))
    }
}
