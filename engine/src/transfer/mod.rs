//! Moves KV pages between instances over TCP.
//!
//! ```text
//! prefill: PageRead ─> Outbox ─(lanes, one thread each)═══ data sockets ═══(one thread each)─> Inbox ─> PageWrite :decode
//! ```
//!
//! It knows transfers, slots and bytes, never sequences. A page is borrowed from the arena for exactly as
//! long as its bytes are read or written, so nobody computes on a page that is still on its way.

mod handshake;
mod inbox;
mod outbox;
mod payload;
mod rate;
mod socket;
mod table;

pub use inbox::{Inbox, InboxLimits};
pub use outbox::{Outbox, OutboxLimits, Outgoing, PageJob, SendState};
pub use rate::Rate;
pub use table::{Expected, Incoming, Landing, RefusedFrame, TransferTable};

/// Bytes from the system's random source.
pub(crate) fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}
