//! A fleet's certificates: what the planner says of them is made and written, and this process's own calls of the
//! engines use what was written.
//!
//! ```text
//! Secret <cluster>-ca   tls.crt, tls.key          the newest authority; mounted by nobody
//! Secret <cluster>-tls  ca.crt, tls.crt, tls.key  mounted by instances and gateways, which follow its changes
//! ```

mod issue;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::events::Event;
use parking_lot::Mutex;
use shoal_plan::{Certificate, CertificatePlan, authority_lifetime};
use shoal_wire::tls::{Identity as TlsIdentity, Material};

use crate::{
    apply::ApplyError,
    calls::Identity,
    children::{authority_secret, certificate_secret},
    clock, events,
    fleet::Fleet,
    observe::SeenCertificates,
    steps::Scene,
};

pub use issue::{IssueError, KeyedCertificate};

/// While a fleet is at rest nobody mounts the Secrets anew, and what was read so long ago will do.
const RECENT: Duration = Duration::from_mins(5);
/// A pod that starts waits for a Secret that somebody deleted.
const RECENT_WHILE_MOVING: Duration = Duration::from_secs(10);

/// What was read of each cluster's certificates, and who this process is to its engines; by UID of the cluster.
#[derive(Debug, Default)]
pub struct Identities(Mutex<HashMap<String, Known>>);

#[derive(Debug, Clone)]
struct Known {
    /// None once a write failed: what is there is not known.
    read: Option<(Instant, SeenCertificates)>,
    /// Of the leaf that was read last.
    leaf: Option<Certificate>,
    identity: Option<Arc<TlsIdentity>>,
}

impl Identities {
    pub fn recent(&self, cluster: &str, at_rest: bool) -> Option<SeenCertificates> {
        let limit = if at_rest { RECENT } else { RECENT_WHILE_MOVING };
        let (at, seen) = self.0.lock().get(cluster)?.read.clone()?;
        (at.elapsed() < limit).then_some(seen)
    }

    /// Connections that are open go on; the next ones use what was read.
    pub fn remember(&self, cluster: &str, seen: SeenCertificates) -> SeenCertificates {
        let mut known = self.0.lock();
        let earlier = known.get(cluster).and_then(|known| known.identity.clone());
        let identity = match (&seen.leaf, earlier) {
            (Some(leaf), Some(identity)) => {
                if let Err(error) = identity.replace(&leaf.material) {
                    tracing::warn!(cluster, %error, "certificates that cannot be used; the earlier ones stay in use");
                }
                Some(identity)
            }
            (Some(leaf), None) => TlsIdentity::new(&leaf.material).ok(),
            (None, earlier) => earlier,
        };
        let leaf = seen.leaf.as_ref().map(|seen| seen.leaf.certificate.clone());
        known
            .insert(cluster.to_owned(), Known { read: Some((Instant::now(), seen.clone())), leaf, identity });
        seen
    }

    /// The certificate that the cluster's processes have, as far as is known.
    pub fn leaf(&self, cluster: &str) -> Option<Certificate> {
        self.0.lock().get(cluster)?.leaf.clone()
    }

    pub fn identity(&self, cluster: &str) -> Option<Arc<TlsIdentity>> {
        self.0.lock().get(cluster)?.identity.clone()
    }

    /// The next look reads anew.
    fn doubt(&self, cluster: &str) {
        if let Some(known) = self.0.lock().get_mut(cluster) {
            known.read = None;
        }
    }

    /// Forgets every cluster that is none any more.
    pub fn keep(&self, exists: impl Fn(&str) -> bool) {
        self.0.lock().retain(|cluster, _| exists(cluster));
    }
}

/// Makes and writes what is missing or due; the events tell of it.
pub async fn ensure(identities: &Identities, scene: &Scene<'_>) -> Result<Vec<Event>, ApplyError> {
    let (fleet, seen) = (scene.fleet, &scene.facts.certificates);
    let (now, lifetime) = (clock::now(), fleet.surroundings.certificate_lifetime);
    let plan = shoal_plan::certificates(&seen.planned(), lifetime, &fleet.uid, now);
    let Some(made) = make(&plan, fleet, seen, now)? else { return Ok(Vec::new()) };
    match write(scene, &made).await {
        Ok((authority, leaf)) => {
            let written = SeenCertificates::of(fleet, authority.as_ref(), Some(&leaf), now);
            identities.remember(&fleet.uid, written);
            Ok(told(&plan, seen))
        }
        Err(error) => {
            identities.doubt(&fleet.uid);
            Err(error)
        }
    }
}

/// What both Secrets are to hold.
struct Made {
    /// None if the one that is there stays.
    authority: Option<KeyedCertificate>,
    material: Material,
}

/// None if everything stays as it is.
fn make(
    plan: &CertificatePlan,
    fleet: &Fleet,
    seen: &SeenCertificates,
    now: Timestamp,
) -> Result<Option<Made>, ApplyError> {
    let lifetime: SignedDuration = fleet.surroundings.certificate_lifetime;
    let all_stay = plan.keep.len() == seen.trusted.len();
    if plan.authority.is_none() && plan.leaf.is_none() && all_stay {
        return Ok(None);
    }
    let authority = match plan.authority {
        Some(_) => Some(issue::authority(authority_lifetime(lifetime), now)?),
        None => None,
    };
    let signer = authority.as_ref().or_else(|| seen.authority.as_ref().map(|known| &known.signer));
    let kept = seen.trusted.iter().filter(|(certificate, _)| plan.keep.contains(&certificate.id));
    let stays = seen.authority.as_ref().is_some_and(|known| plan.keep.contains(&known.certificate.id));
    let comes = signer.filter(|_| authority.is_some() || !stays).map(|signer| signer.certificate.as_str());
    let bundle: Vec<&str> = kept.map(|(_, pem)| pem.as_str()).chain(comes).collect();
    let bundle = bundle.concat();
    let material = match (plan.leaf, &seen.leaf, signer) {
        (None, Some(leaf), _) => Material { authorities: bundle.into_bytes(), ..leaf.material.clone() },
        (_, _, Some(signer)) => issue::leaf(signer, &bundle, &fleet.tls_name(), lifetime, now)?,
        // Without an authority one is made, and without a leaf too.
        (_, _, None) => return Ok(None),
    };
    Ok(Some(Made { authority, material }))
}

/// The bundle first: an authority whose key is there has been trusted since it was made.
async fn write(scene: &Scene<'_>, made: &Made) -> Result<(Option<Secret>, Secret), ApplyError> {
    let (fleet, seen) = (scene.fleet, &scene.facts.certificates);
    let leaf = put(scene, certificate_secret(fleet, &made.material), seen.leaf_secret.as_ref()).await?;
    let signer = made.authority.as_ref().or_else(|| seen.authority.as_ref().map(|known| &known.signer));
    let authority = match (&made.authority, signer) {
        (Some(made), _) => {
            Some(put(scene, authority_secret(fleet, made), seen.authority_secret.as_ref()).await?)
        }
        // As it is there, with the identity under which it was looked at.
        (None, Some(stays)) => {
            let mut secret = authority_secret(fleet, stays);
            if let Some(Identity { uid, resource_version, .. }) = seen.authority_secret.clone() {
                secret.metadata.uid = Some(uid);
                secret.metadata.resource_version = Some(resource_version);
            }
            Some(secret)
        }
        (None, None) => None,
    };
    Ok((authority, leaf))
}

/// That very Secret as it was looked at, or one that was not there.
async fn put(scene: &Scene<'_>, mut secret: Secret, over: Option<&Identity>) -> Result<Secret, ApplyError> {
    let Some(Identity { name, uid, resource_version }) = over else {
        scene.still_wanted().await?;
        return Ok(scene.calls.create(&scene.fleet.namespace, &secret).await?);
    };
    secret.metadata.uid = Some(uid.clone());
    secret.metadata.resource_version = Some(resource_version.clone());
    Ok(scene.calls.apply(&scene.fleet.namespace, name, &secret).await?)
}

fn told(plan: &CertificatePlan, seen: &SeenCertificates) -> Vec<Event> {
    let damaged = |there: bool, usable: bool| there && !usable;
    let authority = plan.authority.map(|why| {
        let damaged = damaged(seen.authority_secret.is_some(), seen.authority.is_some());
        events::of_certificate(
            "RotateAuthority",
            &format!("a new authority of the certificates: {why}"),
            damaged,
        )
    });
    let leaf = plan.leaf.map(|why| {
        let damaged = damaged(seen.leaf_secret.is_some(), seen.leaf.is_some());
        events::of_certificate("RotateCertificate", &format!("a new certificate: {why}"), damaged)
    });
    authority.into_iter().chain(leaf).collect()
}

/// Both Secrets of a fleet, the authority's first, made at that time.
#[cfg(test)]
pub(crate) fn made_at(fleet: &Fleet, now: Timestamp) -> [Secret; 2] {
    let seen = SeenCertificates::default();
    let plan = shoal_plan::certificates(&seen.planned(), fleet.surroundings.certificate_lifetime, "", now);
    let Made { authority, material } = make(&plan, fleet, &seen, now).unwrap().unwrap();
    let mut secrets = [authority_secret(fleet, &authority.unwrap()), certificate_secret(fleet, &material)];
    for secret in &mut secrets {
        secret.metadata.uid = secret.metadata.name.as_ref().map(|name| format!("uid-{name}"));
        secret.metadata.resource_version = Some("7".to_owned());
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::children::tests::{UID, fleet};

    #[test]
    fn after_a_write_that_failed_it_is_still_known_when_the_certificate_ends() {
        let [authority, leaf] = made_at(&fleet(), clock::now());
        let seen = SeenCertificates::of(&fleet(), Some(&authority), Some(&leaf), clock::now());
        let identities = Identities::default();
        identities.remember(UID, seen);
        identities.doubt(UID);
        assert!(identities.recent(UID, true).is_none(), "the next look reads anew");
        let days = identities.leaf(UID).unwrap().ends.duration_since(clock::now()).as_hours() / 24;
        assert!((29..=30).contains(&days), "{days}");
    }
}
