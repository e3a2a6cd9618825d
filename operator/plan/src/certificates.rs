//! When a fleet's certificates are made anew, and in which order, so that at no moment two processes of the fleet
//! refuse each other.
//!
//! ```text
//! authority A signs ──── at 2/3 of its life ──> B is made; everybody learns to trust B beside A
//!                                               │ SPREAD later
//!                                               v
//!                                     leaf issued by B ── a leaf's lifetime later ──> A is trusted no more
//! ```
//!
//! The fleet shares one leaf. It is made anew at two thirds of its life, by the newest authority. All that is known
//! is read off the certificates: a bundle is written before the authority's own Secret, so an authority whose key is
//! there has been in the bundle since it was made.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::draft::after;

/// Certificates hold from a little before they are made, for clocks that are behind.
pub const BACKDATED: SignedDuration = SignedDuration::from_mins(5);
/// An authority lives for as many leaf lifetimes: a year for 30 days.
const LEAVES_OF_AN_AUTHORITY: i32 = 12;
/// Authorities that are trusted at once, the newest and the leaf's own among them. Two are enough, unless their
/// Secret is deleted again and again.
const MAX_TRUSTED: usize = 8;
/// Longest time in which every running process has read a bundle that changed: nodes exchange mounted Secrets within
/// about a minute and a half, and processes look every few seconds. The rest is for nodes that are slow.
const SPREAD: SignedDuration = SignedDuration::from_hours(1);

/// A certificate, as far as time goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Certificate {
    /// Digest of the whole of it.
    pub id: String,
    pub made: Timestamp,
    pub ends: Timestamp,
}

/// The certificate that every process of the fleet has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub certificate: Certificate,
    /// The authority that signed it.
    pub issuer: String,
}

/// What is there and can be used; what is missing, damaged or of another fleet is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certificates {
    /// The newest authority, whose key the operator has.
    pub authority: Option<Certificate>,
    pub leaf: Option<Leaf>,
    /// Every authority in the bundle.
    pub trusted: Vec<Certificate>,
}

/// What is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePlan {
    /// Why a new authority is made; trusted at once, and used later unless the leaf cannot wait.
    pub authority: Option<&'static str>,
    /// Why the leaf is made anew, by the newest authority.
    pub leaf: Option<&'static str>,
    /// Authorities of the bundle that stay in it.
    pub keep: BTreeSet<String>,
}

/// `seed` spreads the renewals of many fleets over time; `lifetime` is a leaf's.
pub fn certificates(
    seen: &Certificates,
    lifetime: SignedDuration,
    seed: &str,
    now: Timestamp,
) -> CertificatePlan {
    let holds = |certificate: &&Certificate| now < certificate.ends;
    let authority = seen.authority.as_ref().filter(holds);
    let leaf = seen.leaf.as_ref().filter(|leaf| holds(&&leaf.certificate));
    let make_authority = match authority {
        None if seen.authority.is_some() => Some("the authority has ended"),
        None => Some("there is no usable authority"),
        Some(known) if now >= renewal(known, seed) => Some("two thirds of the authority's life are over"),
        // Somebody took it out. Who has read the bundle since does not know it: it begins anew, with a new one.
        Some(known) if leaf.is_some() && !seen.trusted.contains(known) => {
            Some("the authority is missing in the bundle")
        }
        Some(_) => None,
    };
    let make_leaf = match leaf {
        None if seen.leaf.is_some() => Some("the certificate has ended"),
        None => Some("there is no usable certificate"),
        // The new authority is not trusted by everybody yet, and the leaf has a third of its life left.
        Some(_) if make_authority.is_some() => None,
        Some(leaf) => authority.and_then(|authority| renew(leaf, authority, lifetime, seed, now)),
    };
    let keep = keep(seen, authority, leaf, lifetime, now);
    CertificatePlan { authority: make_authority, leaf: make_leaf, keep }
}

/// Why a leaf that holds is made anew by an authority that holds.
fn renew(
    leaf: &Leaf,
    authority: &Certificate,
    lifetime: SignedDuration,
    seed: &str,
    now: Timestamp,
) -> Option<&'static str> {
    if leaf.issuer == authority.id {
        let due = now >= renewal(&leaf.certificate, seed);
        due.then_some("two thirds of the certificate's life are over")
    } else {
        let trusted_everywhere = now >= after(authority.made, spread(lifetime));
        trusted_everywhere.then_some("a new authority signs")
    }
}

/// Trusted further: the newest authority, the leaf's, and those that may have signed a leaf which is still in use
/// somewhere. The leaf's own stays even if there are too many.
fn keep(
    seen: &Certificates,
    authority: Option<&Certificate>,
    leaf: Option<&Leaf>,
    lifetime: SignedDuration,
    now: Timestamp,
) -> BTreeSet<String> {
    let needed = |id: &str| {
        authority.is_some_and(|authority| authority.id == id) || leaf.is_some_and(|leaf| leaf.issuer == id)
    };
    // Leaves of an earlier authority were made until the newest one took over.
    let last_leaf_ends = authority.map(|authority| after(after(authority.made, spread(lifetime)), lifetime));
    let in_use = |known: &&Certificate| {
        needed(&known.id) || (now < known.ends && last_leaf_ends.is_none_or(|ends| now < ends))
    };
    let mut kept: Vec<&Certificate> = seen.trusted.iter().filter(in_use).collect();
    kept.sort_by_key(|known| (!needed(&known.id), std::cmp::Reverse(known.made)));
    // One place is for an authority that is to be made.
    kept.into_iter().take(MAX_TRUSTED - 1).map(|known| known.id.clone()).collect()
}

/// When a certificate is to be made anew: at two thirds of its life, less up to a tenth of it that differs between fleets.
pub fn renewal(certificate: &Certificate, seed: &str) -> Timestamp {
    let life = certificate.ends.duration_since(certificate.made);
    let hash = blake3::hash(format!("{seed}:{}", certificate.id).as_bytes());
    let early = f64::from(hash.as_bytes()[0]) / 2550.0;
    after(certificate.made, life.mul_f64(2.0 / 3.0 - early))
}

/// A leaf that lives for a day or less, as in trials, changes over sooner.
fn spread(lifetime: SignedDuration) -> SignedDuration {
    SPREAD.min(lifetime / 6)
}

/// How long an authority lives.
pub fn authority_lifetime(leaf: SignedDuration) -> SignedDuration {
    leaf.saturating_mul(LEAVES_OF_AN_AUTHORITY)
}

#[cfg(test)]
mod tests;
