//! The two Secrets of a fleet's certificates, read: what cannot be used counts as missing, and is made anew.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use rcgen::PublicKeyData as _;
use shoal_plan::{BACKDATED, Certificate, Certificates, Leaf};
use shoal_wire::tls::{Identity as TlsIdentity, Material};
use x509_parser::{pem::Pem, prelude::X509Certificate};

use crate::{calls::Identity, certificates::KeyedCertificate, fleet::Fleet};

/// Keys of a Secret of type `kubernetes.io/tls`, and of the bundle beside them.
pub const CERTIFICATE: &str = "tls.crt";
pub const KEY: &str = "tls.key";
pub const BUNDLE: &str = "ca.crt";
/// Certificates read of one bundle.
const MAX_BUNDLE: usize = 16;

/// What is in both Secrets.
#[derive(Debug, Clone, Default)]
pub struct SeenCertificates {
    pub authority: Option<SeenAuthority>,
    pub leaf: Option<SeenLeaf>,
    /// The bundle, with each authority's PEM.
    pub trusted: Vec<(Certificate, String)>,
    /// The Secrets as they were looked at, whatever is in them.
    pub authority_secret: Option<Identity>,
    pub leaf_secret: Option<Identity>,
}

#[derive(Debug, Clone)]
pub struct SeenAuthority {
    pub certificate: Certificate,
    pub signer: KeyedCertificate,
}

#[derive(Debug, Clone)]
pub struct SeenLeaf {
    pub leaf: Leaf,
    pub material: Material,
}

impl SeenCertificates {
    /// As the planner sees them.
    pub fn planned(&self) -> Certificates {
        Certificates {
            authority: self.authority.as_ref().map(|seen| seen.certificate.clone()),
            leaf: self.leaf.as_ref().map(|seen| seen.leaf.clone()),
            trusted: self.trusted.iter().map(|(certificate, _)| certificate.clone()).collect(),
        }
    }

    /// `authority` and `leaf` are Secrets that the fleet controls.
    pub fn of(fleet: &Fleet, authority: Option<&Secret>, leaf: Option<&Secret>, now: Timestamp) -> Self {
        let trusted = leaf.map(bundle).unwrap_or_default();
        Self {
            authority: authority.and_then(seen_authority),
            leaf: leaf.and_then(|secret| seen_leaf(secret, &fleet.tls_name(), &trusted, now)),
            trusted: trusted.into_iter().map(|(known, _, pem)| (known, pem)).collect(),
            authority_secret: authority.map(|secret| Identity::of(&secret.metadata)),
            leaf_secret: leaf.map(|secret| Identity::of(&secret.metadata)),
        }
    }
}

fn seen_authority(secret: &Secret) -> Option<SeenAuthority> {
    let signer = KeyedCertificate { certificate: text(secret, CERTIFICATE)?, key: text(secret, KEY)? };
    let (certificate, names, _) = parsed(&signer.certificate).next()?;
    let key = rcgen::KeyPair::from_pem(&signer.key).ok()?;
    let fits = names.public_key == key.subject_public_key_info();
    fits.then_some(SeenAuthority { certificate, signer })
}

/// A certificate that processes accept: for the fleet's name, by an authority of the bundle, with its own key. One
/// that has ended is seen, so that it can be told.
fn seen_leaf(
    secret: &Secret,
    name: &str,
    trusted: &[(Certificate, Names, String)],
    now: Timestamp,
) -> Option<SeenLeaf> {
    let material = Material {
        authorities: text(secret, BUNDLE)?.into_bytes(),
        certificate: text(secret, CERTIFICATE)?.into_bytes(),
        key: text(secret, KEY)?.into_bytes(),
    };
    let (certificate, names, _) = parsed(&text(secret, CERTIFICATE)?).next()?;
    let (issuer, _, _) = trusted.iter().find(|(_, authority, _)| authority.subject == names.issuer)?;
    let usable = TlsIdentity::new(&material).is_ok_and(|identity| identity.name() == name);
    let leaf = Leaf { issuer: issuer.id.clone(), certificate };
    (usable || leaf.certificate.ends <= now).then_some(SeenLeaf { leaf, material })
}

fn bundle(secret: &Secret) -> Vec<(Certificate, Names, String)> {
    text(secret, BUNDLE).map(|text| parsed(&text).take(MAX_BUNDLE).collect()).unwrap_or_default()
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let content: &BTreeMap<String, ByteString> = secret.data.as_ref()?;
    String::from_utf8(content.get(key)?.0.clone()).ok()
}

/// Who a certificate is of, by which key, and who signed it: as bytes.
#[derive(Debug)]
struct Names {
    subject: Vec<u8>,
    public_key: Vec<u8>,
    issuer: Vec<u8>,
}

/// Certificates of a PEM text that can be read, each with its own piece of it.
fn parsed(text: &str) -> impl Iterator<Item = (Certificate, Names, String)> {
    const END: &str = "-----END CERTIFICATE-----";
    let pieces: Vec<String> = text.split_inclusive(END).map(|piece| format!("{}\n", piece.trim())).collect();
    pieces.into_iter().filter_map(|piece| {
        let pem = Pem::iter_from_buffer(piece.as_bytes()).next()?.ok()?;
        let (certificate, names) = read(&pem.contents, &pem.parse_x509().ok()?)?;
        Some((certificate, names, piece))
    })
}

fn read(der: &[u8], parsed: &X509Certificate<'_>) -> Option<(Certificate, Names)> {
    let at = |seconds: i64| Timestamp::from_second(seconds).ok();
    let made = at(parsed.validity().not_before.timestamp())?.checked_add(BACKDATED).ok()?;
    let ends = at(parsed.validity().not_after.timestamp())?;
    let id = blake3::hash(der).to_hex().chars().take(32).collect();
    let names = Names {
        subject: parsed.subject().as_raw().to_vec(),
        public_key: parsed.public_key().raw.to_vec(),
        issuer: parsed.issuer().as_raw().to_vec(),
    };
    Some((Certificate { id, made, ends }, names))
}
