//! What is true of one cluster's objects: the only reader of them.
//!
//! ```text
//! caches (watches) ─┐
//! live Secrets ─────┼─> Facts ── engines' answers ──> Observed, for the planner
//! ```
//!
//! Objects belong to a cluster by the UID of their controller; a label only brings them into the cache.

mod certificates;
mod gateway;
mod instance;
mod phase;
mod pod;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use shoal_crds::{ServingClusterStatus, ServingRole};
use shoal_plan::{GatewayTemplate, Instance, Observed, Phase, Role};
use shoal_wire::FleetSecret;

use crate::{
    actuate::{Answer, SILENCE},
    cache::{Cache, Live},
    calls::{Calls, Identity},
    certificates::Identities,
    children::SECRET_KEY,
    clock,
    error::{CallError, Class},
    fleet::Fleet,
    labels,
    secrets::Secrets,
};

pub use certificates::{BUNDLE, CERTIFICATE, KEY, SeenAuthority, SeenCertificates, SeenLeaf};
pub use gateway::{GatewayFacts, GatewayPod};
pub use instance::InstanceFacts;
pub(crate) use phase::has_role;
pub use pod::{ENGINE_CONTAINER, FETCH_CONTAINER, State, WatchedPod};

/// What is kept of a pod: what it says of the instance or of the gateway that it is.
#[derive(Debug, Clone)]
pub enum SeenPod {
    Instance(Arc<InstanceFacts>),
    Gateway(Arc<GatewayPod>),
}

impl SeenPod {
    /// None for a pod that is neither.
    pub fn of(pod: &WatchedPod) -> Option<Self> {
        let instance = InstanceFacts::of(pod).map(|facts| Self::Instance(Arc::new(facts)));
        instance.or_else(|| GatewayPod::of(pod).map(|facts| Self::Gateway(Arc::new(facts))))
    }

    /// The resource version under which it was seen.
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Instance(facts) => Some(&facts.identity.resource_version),
            Self::Gateway(facts) => facts.version.as_deref(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    #[error("looking at what the cluster has: {0}")]
    Call(#[from] CallError),
    #[error("Secret {name} belongs to somebody else; delete or rename it")]
    ForeignSecret { name: String },
    #[error("Secret {name} has no usable value; delete it, so that a new one is made")]
    BrokenSecret { name: String },
}

impl ObserveError {
    pub fn class(&self) -> Class {
        match self {
            Self::Call(error) => error.class(),
            Self::ForeignSecret { .. } | Self::BrokenSecret { .. } => Class::Transient,
        }
    }
}

/// The fleet secret that is there.
#[derive(Clone)]
pub struct SeenSecret {
    /// UID of the first object that had this value.
    pub id: String,
    pub value: FleetSecret,
    /// What the mounted file has.
    pub content: ByteString,
}

/// Never shows the value.
impl std::fmt::Debug for SeenSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SeenSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Everything that was seen, before the engines were asked.
#[derive(Debug)]
pub struct Facts {
    /// The newest pod of each instance, sorted by the instance's name.
    pub instances: Vec<Arc<InstanceFacts>>,
    /// Pods whose instance has a newer one, not asked to end yet.
    pub superseded: Vec<Identity>,
    pub gateway: Option<GatewayFacts>,
    pub live: Live,
    pub secret: Option<SeenSecret>,
    /// What pods use, if the Secret is gone and this process has read it before.
    pub lost_secret: Option<SeenSecret>,
    pub certificates: SeenCertificates,
    /// Instances are to be within TLS.
    pub tls: bool,
    pub status: Option<ServingClusterStatus>,
}

impl Facts {
    pub fn instance(&self, name: &str) -> Option<&InstanceFacts> {
        let found = self.instances.binary_search_by(|instance| instance.name.as_str().cmp(name));
        found.ok().map(|index| self.instances[index].as_ref())
    }

    /// The value that running pods have read.
    pub fn secret_of_pods(&self) -> Option<&SeenSecret> {
        self.secret.as_ref().or(self.lost_secret.as_ref())
    }

    /// Where to ask how far the model of each instance is that fetches it.
    pub fn fetching(&self) -> Vec<String> {
        self.instances.iter().filter_map(|instance| instance.fetching()).collect()
    }

    /// What the gateway was last made of.
    pub fn gateway_template(&self) -> Option<&GatewayTemplate> {
        self.gateway.as_ref()?.template.as_ref()
    }

    /// The planner's view, with what each engine said, by pod name.
    pub fn observed(&self, answers: &HashMap<String, Answer>, now: Timestamp) -> Observed {
        let gateway = self.gateway.as_ref().map(GatewayFacts::observed);
        let serving = gateway.as_ref().is_some_and(|gateway| gateway.serving);
        let instance = |facts: &Arc<InstanceFacts>| facts.observed(answers.get(&facts.identity.name), now);
        let mut instances: Vec<Instance> = self.instances.iter().map(instance).collect();
        if serving && !answers.is_empty() && answers.values().all(|answer| answer.silence >= SILENCE) {
            instances.iter_mut().for_each(unreachable);
        }
        Observed { instances, gateway, status: self.status.clone() }
    }
}

/// No engine answers this process, and yet the gateway hears them: it is this process that cannot be trusted.
/// Engines that serve are not replaced because of it.
fn unreachable(instance: &mut Instance) {
    if let Phase::Unresponsive { since } = instance.phase {
        let why = "it serves, but the operator cannot reach it; see the network policies".to_owned();
        instance.phase = Phase::Retrying { since, why };
    }
}

/// Looks at everything that belongs to the fleet.
pub async fn observe(
    cache: &Cache,
    secrets: &Secrets,
    identities: &Identities,
    calls: &Calls,
    fleet: &Fleet,
    status: Option<ServingClusterStatus>,
) -> Result<Facts, ObserveError> {
    let live = with_roles(cache.live(fleet), calls, fleet).await?;
    let (mut owned, mut gateways) = (Vec::new(), Vec::new());
    for pod in cache.pods_of(fleet) {
        match pod {
            SeenPod::Instance(facts) if facts.controller == fleet.uid => owned.push(facts),
            SeenPod::Instance(_) => {}
            SeenPod::Gateway(facts) => gateways.push(facts),
        }
    }
    let (instances, superseded) = instance::newest(owned);
    let gateway = live.gateway.as_ref().map(|deployment| gateway::facts(fleet, deployment, &gateways));
    // While everything runs nobody mounts the secret anew, and an older look will do.
    let at_rest = instances.iter().all(|facts| facts.runs()) && !instances.is_empty();
    let name = String::from(fleet.names().fleet_secret());
    let known = if at_rest { secrets.recent(&fleet.uid) } else { None };
    let secret = match known {
        Some(known) => Some(known),
        None => match calls.get::<Secret>(&fleet.namespace, &name).await? {
            Some(found) => Some(secrets.remember(&fleet.uid, read_secret(fleet, &name, &found)?)),
            None => None,
        },
    };
    let used = !instances.is_empty() || !gateways.is_empty();
    let lost_secret = if secret.is_none() && used { secrets.last(&fleet.uid) } else { None };
    let certificates = match identities.recent(&fleet.uid, at_rest) {
        Some(known) => known,
        None => identities.remember(&fleet.uid, read_certificates(calls, fleet).await?),
    };
    // A gateway of an earlier release cannot reach an instance within TLS: those are made when the last such gateway
    // is gone. From then on nothing leads back.
    let tls = instances.iter().any(|instance| instance.tls) || gateway::all_know_tls(&gateways);
    Ok(Facts { instances, superseded, gateway, live, secret, lost_secret, certificates, tls, status })
}

async fn read_certificates(calls: &Calls, fleet: &Fleet) -> Result<SeenCertificates, ObserveError> {
    let names = fleet.names();
    let authority = owned_secret(calls, fleet, names.authority().into()).await?;
    let leaf = owned_secret(calls, fleet, names.certificate().into()).await?;
    Ok(SeenCertificates::of(fleet, authority.as_ref(), leaf.as_ref(), clock::now()))
}

async fn owned_secret(calls: &Calls, fleet: &Fleet, name: String) -> Result<Option<Secret>, ObserveError> {
    match calls.get::<Secret>(&fleet.namespace, &name).await? {
        Some(found) if !fleet.controls(&found.metadata) => Err(ObserveError::ForeignSecret { name }),
        found => Ok(found),
    }
}

/// A ServingRole that the cache does not have may be there all the same, and its count would be lost.
async fn with_roles(mut live: Live, calls: &Calls, fleet: &Fleet) -> Result<Live, CallError> {
    let missing = [(Role::Prefill, &mut live.prefill_role), (Role::Decode, &mut live.decode_role)];
    for (role, place) in missing.into_iter().filter(|(_, place)| place.is_none()) {
        let name = fleet.names().role(role);
        *place = calls.get::<ServingRole>(&fleet.namespace, name.as_str()).await?.map(Arc::new);
    }
    Ok(live)
}

/// The value of a fleet secret that is this fleet's.
pub fn read_secret(fleet: &Fleet, name: &str, secret: &Secret) -> Result<SeenSecret, ObserveError> {
    let name = || name.to_owned();
    if !fleet.controls(&secret.metadata) {
        return Err(ObserveError::ForeignSecret { name: name() });
    }
    let content = secret.data.as_ref().and_then(|data| data.get(SECRET_KEY)).cloned().unwrap_or_default();
    let value = FleetSecret::parse(&content.0).ok_or_else(|| ObserveError::BrokenSecret { name: name() })?;
    let first = secret.metadata.annotations.as_ref().and_then(|notes| notes.get(labels::FLEET_SECRET));
    let id = first.or(secret.metadata.uid.as_ref()).cloned().unwrap_or_default();
    Ok(SeenSecret { id, value, content })
}
