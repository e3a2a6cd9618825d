//! Mutual TLS of a fleet's gRPC.
//!
//! ```text
//! folder ──Material──> Credentials ──> Identity ──┬─ incoming(listener)   what a server accepts
//!    └───────── follow: replaced when it changes ─┴─ channel(endpoint)    what a client connects
//! ```
//!
//! Every process of a fleet has a certificate of the fleet's own authority for the fleet's own name, a DNS name
//! that no resolver knows: addresses change, and which process of a fleet it is matters to nobody. Either side of a
//! connection asks for both. A new certificate counts from the next handshake on; connections that are open go on.

mod connect;
mod credentials;
mod folder;
mod incoming;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig, client::Resumption, server::NoServerSessionStorage};

use credentials::Credentials;
use verify::Current;

pub use connect::channel;
pub use credentials::Material;
pub use incoming::{Accepted, Incoming};

/// What HTTP/2 is called in a handshake.
const ALPN: &[u8] = b"h2";

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} has more than {limit} bytes")]
    TooLong { path: String, limit: u64 },
    #[error("{file} is no PEM file that can be used: {why}")]
    Pem { file: &'static str, why: String },
    #[error("tls.crt names no fleet: it must have one DNS name")]
    NoName,
    #[error("the certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// What to do about an error: all of these pass when the files change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The files must change.
    Invalid,
    /// They may be readable later.
    Transient,
}

impl TlsError {
    pub fn class(&self) -> Class {
        match self {
            Self::Read { .. } => Class::Transient,
            Self::TooLong { .. } | Self::Pem { .. } | Self::NoName | Self::Unusable(_) => Class::Invalid,
        }
    }
}

/// Who this process is to others of its fleet, and whom it takes for one of them; replaceable while it is used.
#[derive(Debug)]
pub struct Identity {
    current: Arc<ArcSwap<Credentials>>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Identity {
    pub fn new(material: &Material) -> Result<Arc<Self>, TlsError> {
        let current = Arc::new(ArcSwap::from_pointee(Credentials::parse(material)?));
        let (server, client) = configs(&current)?;
        Ok(Arc::new(Self { current, server: Arc::new(server), client: Arc::new(client) }))
    }

    /// What handshakes use from now on. Nothing changes if the material cannot be used.
    pub fn replace(&self, material: &Material) -> Result<(), TlsError> {
        self.current.store(Arc::new(Credentials::parse(material)?));
        Ok(())
    }

    /// The fleet's name in its certificates.
    pub fn name(&self) -> String {
        self.current.load().name.to_str().into_owned()
    }
}

/// Version 1.3 alone. No session is resumed: a resumed one would go on with what an older certificate proved, and
/// connections are few and long.
fn configs(current: &Arc<ArcSwap<Credentials>>) -> Result<(ServerConfig, ClientConfig), TlsError> {
    let ours = Arc::new(Current(Arc::clone(current)));
    let versions = [&rustls::version::TLS13];
    let mut server = ServerConfig::builder_with_provider(credentials::provider())
        .with_protocol_versions(&versions)?
        .with_client_cert_verifier(Arc::clone(&ours) as _)
        .with_cert_resolver(Arc::clone(&ours) as _);
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(credentials::provider())
        .with_protocol_versions(&versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&ours) as _)
        .with_client_cert_resolver(ours as _);
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = Resumption::disabled();
    Ok((server, client))
}
