//! The fleet secret and what is derived from it.
//!
//! One secret per fleet, read from a file. Each use has its own key (BLAKE3 key derivation), so a leaked
//! gRPC token tells nothing about data sockets or page keys. The secret itself never crosses a socket.

use std::path::Path;

use subtle::ConstantTimeEq;
use tonic::{Request, Status, metadata::MetadataValue};

const GRPC: &str = "shoal.dev 2026-11 grpc bearer token";
const DATA: &str = "shoal.dev 2026-11 data socket handshake";
const PAGES: &str = "shoal.dev 2026-11 page keys";

/// At least this many bytes, so that a guess is out of reach.
const MIN_SECRET_BYTES: usize = 32;
/// A secret is a line, not a file of any size.
const MAX_SECRET_BYTES: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the fleet secret {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("the fleet secret {path} has {length} bytes; it must have 32 to 4096")]
    Length { path: String, length: u64 },
}

/// Never printed: `Debug` hides it.
#[derive(Clone)]
pub struct FleetSecret([u8; 32]);

impl std::fmt::Debug for FleetSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FleetSecret(..)")
    }
}

impl FleetSecret {
    /// Reads the secret; white space around it does not count.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let shown = path.display().to_string();
        let read = |source| SecretError::Read { path: shown.clone(), source };
        let length = std::fs::metadata(path).map_err(read)?.len();
        if length > MAX_SECRET_BYTES {
            return Err(SecretError::Length { path: shown, length });
        }
        let bytes = std::fs::read(path).map_err(read)?;
        Self::parse(&bytes).ok_or(SecretError::Length { path: shown, length: bytes.len() as u64 })
    }

    /// The secret that a file of this content holds; none if it is too short or too long.
    pub fn parse(content: &[u8]) -> Option<Self> {
        let secret = content.trim_ascii();
        let fits = secret.len() >= MIN_SECRET_BYTES && content.len() as u64 <= MAX_SECRET_BYTES;
        fits.then(|| Self(*blake3::hash(secret).as_bytes()))
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Key of the data sockets' challenge and response.
    pub fn data_key(&self) -> [u8; 32] {
        blake3::derive_key(DATA, &self.0)
    }

    /// Key under which page keys are made.
    pub fn page_key(&self) -> [u8; 32] {
        blake3::derive_key(PAGES, &self.0)
    }

    /// Adds the bearer token to an outgoing call.
    pub fn sign<T>(&self, mut request: Request<T>) -> Request<T> {
        if let Ok(value) = MetadataValue::try_from(format!("Bearer {}", self.bearer())) {
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    /// Checks an incoming call in constant time.
    pub fn verify<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let expected = format!("Bearer {}", self.bearer());
        let given =
            request.metadata().get("authorization").map_or(&b""[..], |value| value.as_encoded_bytes());
        if bool::from(given.ct_eq(expected.as_bytes())) {
            Ok(())
        } else {
            Err(Status::unauthenticated("the call does not carry this fleet's token"))
        }
    }

    fn bearer(&self) -> String {
        blake3::Hash::from(blake3::derive_key(GRPC, &self.0)).to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_32_to_4096_bytes_and_white_space_around_it_does_not_count() {
        let parse = |content: &[u8]| FleetSecret::parse(content).map(|secret| secret.bearer());
        assert_eq!(parse(&[b'x'; 31]), None);
        assert_eq!(parse(&[b'x'; 4097]), None);
        assert_eq!(parse(&[&[b'x'; 31][..], b"\n"].concat()), None);
        assert!(parse(&[b'x'; 32]).is_some());
        assert_eq!(parse(&[&[b'x'; 32][..], b" \n"].concat()), parse(&[b'x'; 32]));
    }

    #[test]
    fn only_the_same_secret_verifies_and_debug_never_shows_it() {
        let (ours, theirs) = (FleetSecret::from_bytes([1; 32]), FleetSecret::from_bytes([2; 32]));
        assert!(ours.verify(&ours.sign(Request::new(()))).is_ok());
        assert!(ours.verify(&theirs.sign(Request::new(()))).is_err());
        assert!(ours.verify(&Request::new(())).is_err());
        assert_eq!(format!("{ours:?}"), "FleetSecret(..)");
    }
}
