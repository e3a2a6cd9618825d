//! Makes keys and certificates. Times are the planner's.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use shoal_plan::BACKDATED;
use shoal_wire::tls::Material;

/// A certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyedCertificate {
    pub certificate: String,
    pub key: String,
}

/// Never shows the key.
impl std::fmt::Debug for KeyedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedCertificate").finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("making a certificate: {0}")]
    Made(#[from] rcgen::Error),
    #[error("no randomness for a certificate: {0}")]
    Random(#[from] getrandom::Error),
}

/// A new authority, which may sign members of the fleet and no further authority.
pub(super) fn authority(life: SignedDuration, now: Timestamp) -> Result<KeyedCertificate, IssueError> {
    let mut params = CertificateParams::default();
    hold(&mut params, life, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name = DistinguishedName::new();
    // A name of its own, because a certificate says by it who signed.
    let mut tail = [0; 8];
    getrandom::fill(&mut tail)?;
    let name = format!("Shoal fleet authority {:016x}", u64::from_be_bytes(tail));
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    Ok(KeyedCertificate { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// The certificate of every process of a fleet: both ends of a connection, under the fleet's name.
pub(super) fn leaf(
    signer: &KeyedCertificate,
    trusted: &str,
    name: &str,
    life: SignedDuration,
    now: Timestamp,
) -> Result<Material, IssueError> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    hold(&mut params, life, now);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Shoal fleet");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let issuer = Issuer::from_ca_cert_pem(&signer.certificate, KeyPair::from_pem(&signer.key)?)?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Material {
        authorities: trusted.to_owned().into_bytes(),
        certificate: certificate.into_bytes(),
        key: key.serialize_pem().into_bytes(),
    })
}

fn hold(params: &mut CertificateParams, life: SignedDuration, now: Timestamp) {
    let epoch = date_time_ymd(1970, 1, 1);
    let seconds = |at: Timestamp| Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0));
    let begins = now.checked_sub(BACKDATED).unwrap_or(now);
    let ends = now.checked_add(life).unwrap_or(Timestamp::MAX);
    params.not_before = epoch + seconds(begins);
    params.not_after = epoch + seconds(ends);
}
