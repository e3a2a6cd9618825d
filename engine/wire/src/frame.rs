//! Frames of the KV data sockets: fixed headers, bounded payloads, no parser state.
//!
//! ```text
//! handshake  prefill → decode   Greeting { magic, protocol, nonce }
//!            decode → prefill   Greeting { magic, protocol, nonce }
//!            prefill → decode   proof = keyed_hash(data key, "client" ‖ both nonces)
//!            decode → prefill   proof = keyed_hash(data key, "server" ‖ both nonces)
//! then       prefill → decode   PageHeader, payload, PageHeader, payload, …
//! ```
//!
//! A header names a transfer, a slot and the slot's generation. A frame whose transfer is unknown, whose
//! generation is old or whose checksum is wrong is read to its end and dropped: it lands nowhere.

use crate::limits::MAX_FRAME_BYTES;

/// Bytes of [`Greeting`] on the wire.
pub const GREETING_BYTES: usize = 40;
/// Bytes of a handshake proof.
pub const PROOF_BYTES: usize = 32;
/// Bytes of [`PageHeader`] on the wire: the stated overhead of a page.
pub const HEADER_BYTES: usize = 48;

const MAGIC: [u8; 4] = *b"SHKV";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("not a Shoal data socket: the greeting starts with {0:02x?}")]
    Magic([u8; 4]),
    #[error("the peer speaks protocol {theirs}; this is {ours}")]
    Protocol { ours: u32, theirs: u32 },
    #[error("a frame of {0} bytes exceeds the limit of {MAX_FRAME_BYTES}")]
    TooLong(u64),
}

/// First bytes in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    pub nonce: [u8; 32],
}

impl Greeting {
    pub fn encode(&self) -> [u8; GREETING_BYTES] {
        let mut bytes = [0; GREETING_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&crate::PROTOCOL.to_le_bytes());
        bytes[8..].copy_from_slice(&self.nonce);
        bytes
    }

    pub fn decode(bytes: &[u8; GREETING_BYTES]) -> Result<Self, FrameError> {
        let magic: [u8; 4] = array(&bytes[..4]);
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let theirs = u32::from_le_bytes(array(&bytes[4..8]));
        if theirs != crate::PROTOCOL {
            return Err(FrameError::Protocol { ours: crate::PROTOCOL, theirs });
        }
        Ok(Self { nonce: array(&bytes[8..]) })
    }
}

/// Which side a handshake proof speaks for; a proof cannot be reflected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// Proof that a side knows the fleet's data key, bound to both nonces.
pub fn proof(data_key: &[u8; 32], side: Side, client: &Greeting, server: &Greeting) -> [u8; PROOF_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(data_key);
    hasher.update(match side {
        Side::Client => b"client",
        Side::Server => b"server",
    });
    hasher.update(&client.nonce);
    hasher.update(&server.nonce);
    *hasher.finalize().as_bytes()
}

/// Compares proofs in constant time.
pub fn proof_matches(a: &[u8; PROOF_BYTES], b: &[u8; PROOF_BYTES]) -> bool {
    bool::from(subtle::ConstantTimeEq::ct_eq(&a[..], &b[..]))
}

/// Precedes the KV of one page. `payload_bytes` = tokens × bytes per token; a page that is not full sends
/// the valid tokens of each (head, layer, K|V) run, in layout order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    pub transfer: u64,
    pub slot: u32,
    pub generation: u32,
    /// Position of the page's first token in the prompt.
    pub first_token: u32,
    /// Valid tokens, `1..=page_tokens`.
    pub tokens: u32,
    pub payload_bytes: u64,
    /// XXH3 of the payload, seeded with `transfer`.
    pub checksum: u64,
}

impl PageHeader {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.transfer.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.slot.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.first_token.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    /// Refuses lengths over the limit: nothing may be read or allocated for them.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let u32_at = |at: usize| u32::from_le_bytes(array(&bytes[at..at + 4]));
        let u64_at = |at: usize| u64::from_le_bytes(array(&bytes[at..at + 8]));
        let payload_bytes = u64_at(24);
        if payload_bytes > MAX_FRAME_BYTES as u64 {
            return Err(FrameError::TooLong(payload_bytes));
        }
        Ok(Self {
            transfer: u64_at(0),
            slot: u32_at(8),
            generation: u32_at(12),
            first_token: u32_at(16),
            tokens: u32_at(20),
            payload_bytes,
            checksum: u64_at(32),
        })
    }

    /// Checksum of a payload of this transfer.
    pub fn checksum_of(transfer: u64, payload: &[u8]) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(payload, transfer)
    }
}

/// The slices above have constant bounds, so the lengths always agree.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_header_survives_the_wire(transfer: u64, slot: u32, generation: u32, first_token: u32, tokens: u32, payload_bytes in 0..=MAX_FRAME_BYTES as u64, checksum: u64) {
            let header = PageHeader { transfer, slot, generation, first_token, tokens, payload_bytes, checksum };
            prop_assert_eq!(PageHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn random_bytes_never_panic_and_never_ask_for_more_than_the_limit(bytes: [u8; HEADER_BYTES], hello: [u8; GREETING_BYTES]) {
            let _ = Greeting::decode(&hello);
            if let Ok(header) = PageHeader::decode(&bytes) {
                prop_assert!(header.payload_bytes <= MAX_FRAME_BYTES as u64);
            }
        }
    }

    #[test]
    fn a_proof_cannot_be_reflected() {
        let (client, server) = (Greeting { nonce: [1; 32] }, Greeting { nonce: [2; 32] });
        let key = [9; 32];
        assert!(!proof_matches(
            &proof(&key, Side::Client, &client, &server),
            &proof(&key, Side::Server, &client, &server)
        ));
    }
}
