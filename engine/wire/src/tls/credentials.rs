//! Certificates, key and authorities, parsed and found to fit together.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use webpki::EndEntityCert;

use super::TlsError;

/// Authorities and certificates of one chain that are read; more than a rotation ever has.
const MAX_CERTIFICATES: usize = 16;

/// PEM of a `kubernetes.io/tls` Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// `ca.crt`: every authority whose certificates are accepted.
    pub authorities: Vec<u8>,
    /// `tls.crt`
    pub certificate: Vec<u8>,
    /// `tls.key`
    pub key: Vec<u8>,
}

/// Never shows the key.
impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

/// What one handshake uses as a whole.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) name: ServerName<'static>,
    pub(super) own: Arc<CertifiedKey>,
    pub(super) servers: Arc<WebPkiServerVerifier>,
    pub(super) clients: Arc<dyn ClientCertVerifier>,
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Credentials {
    /// Refuses what peers would refuse: a key of another certificate, an authority that did not sign it, a time in
    /// which it does not hold. Files that are read while they are exchanged are found out so, too.
    pub(super) fn parse(material: &Material) -> Result<Self, TlsError> {
        let provider = provider();
        let chain = certificates("tls.crt", &material.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&material.key)
            .map_err(|error| TlsError::Pem { file: "tls.key", why: error.to_string() })?;
        let name = name(&chain)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates("ca.crt", &material.authorities)? {
            roots.add(authority)?;
        }
        let roots = Arc::new(roots);
        let refused = |error: rustls::server::VerifierBuilderError| TlsError::Pem {
            file: "ca.crt",
            why: error.to_string(),
        };
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let (servers, clients) = (servers.build().map_err(refused)?, clients.build().map_err(refused)?);
        let own = CertifiedKey::from_der(chain, key, &provider)?;
        let (leaf, rest) = (own.end_entity_cert()?, own.cert.get(1..).unwrap_or_default());
        servers.verify_server_cert(leaf, rest, &name, &[], UnixTime::now())?;
        clients.verify_client_cert(leaf, rest, UnixTime::now())?;
        Ok(Self { name, own: Arc::new(own), servers, clients })
    }
}

fn certificates(file: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |why: String| TlsError::Pem { file, why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(MAX_CERTIFICATES + 1).collect();
    match found {
        Ok(found) if found.is_empty() => Err(unusable("it has no certificate".to_owned())),
        Ok(found) if found.len() > MAX_CERTIFICATES => {
            Err(unusable(format!("it has more than {MAX_CERTIFICATES} certificates")))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// The name that this process's own certificate was made for is the one that peers must have.
fn name(chain: &[CertificateDer<'_>]) -> Result<ServerName<'static>, TlsError> {
    let leaf = chain.first().ok_or(TlsError::NoName)?;
    let leaf = EndEntityCert::try_from(leaf)
        .map_err(|error| TlsError::Pem { file: "tls.crt", why: error.to_string() })?;
    let mut names = leaf.valid_dns_names();
    match (names.next(), names.next()) {
        (Some(name), None) => {
            ServerName::try_from(name).map(|name| name.to_owned()).map_err(|_| TlsError::NoName)
        }
        _ => Err(TlsError::NoName),
    }
}
