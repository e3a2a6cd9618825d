//! The planner: what to do next, and why, from plain values.
//!
//! ```text
//! Cluster (name, generation, spec, stopping) ─┐
//! Observed (instances, gateway, last status) ─┼─> plan ─> Plan { steps, waits, status, requeue_after }
//! now ────────────────────────────────────────┘
//! ```
//!
//! Total, deterministic and blind: no clock, no randomness, no environment, no async, no client. Every step
//! and every wait carries its reason; logs, events and conditions print those same words. Planning again on
//! the outcome of a plan yields no step, so a plan may be applied late, twice or in part.

mod backoff;
mod certificates;
mod draft;
mod gateway;
mod observed;
mod roles;
mod status;
mod template;
mod timing;
mod words;

use std::collections::BTreeSet;

use jiff::Timestamp;
use shoal_crds::ServingClusterSpec;

pub use backoff::{CrashHistory, delay};
pub use certificates::{
    BACKDATED, Certificate, CertificatePlan, Certificates, Leaf, authority_lifetime, certificates, renewal,
};
pub use draft::{Action, Plan, Step, Wait};
pub use observed::{Gateway, Instance, Observed, Phase, Role};
pub use status::reason;
pub use template::{GatewayTemplate, Template, model_digest};
pub use timing::{DRAIN_TIMEOUT, GATEWAY_START_TIMEOUT, HEALTHY_RESET, START_TIMEOUT, UNRESPONSIVE_GRACE};
pub use words::last_words;

use draft::Draft;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// A DNS label of at most 40 characters (the resource's own rule).
    pub name: String,
    pub generation: i64,
    pub spec: ServingClusterSpec,
    /// Container image of the instances; empty where they are programs of one machine.
    pub image: String,
    /// Instances are to be within mutual TLS; false on one machine, and while a gateway that knows no TLS is left.
    pub tls: bool,
    /// Bring everything down: gateway first, so that nothing is asked of an instance that goes away.
    pub stopping: bool,
}

/// What every rule looks at.
struct World<'a> {
    cluster: &'a Cluster,
    /// Sorted by name, so that the order in which a host lists its instances changes nothing.
    instances: Vec<&'a Instance>,
    gateway: Option<&'a Gateway>,
    template: Template,
    template_hash: String,
    model: String,
    now: Timestamp,
}

impl<'a> World<'a> {
    fn new(cluster: &'a Cluster, observed: &'a Observed, now: Timestamp) -> Self {
        let mut instances: Vec<&Instance> = observed.instances.iter().collect();
        instances.sort_by(|a, b| a.name.cmp(&b.name));
        let template = Template { tls: cluster.tls, ..Template::of(&cluster.spec, &cluster.image) };
        Self {
            cluster,
            instances,
            gateway: observed.gateway.as_ref(),
            template_hash: template.hash(),
            model: model_digest(&template.model),
            template,
            now,
        }
    }

    fn desired(&self, role: Role) -> usize {
        let replicas = match role {
            Role::Prefill => self.cluster.spec.prefill.replicas,
            Role::Decode => self.cluster.spec.decode.replicas,
        };
        usize::try_from(replicas).unwrap_or(0)
    }

    fn is_current(&self, instance: &Instance) -> bool {
        instance.template == self.template_hash
    }

    fn used_names(&self) -> BTreeSet<&'a str> {
        self.instances.iter().map(|instance| instance.name.as_str()).collect()
    }
}

/// The next steps towards `cluster` from what was observed at `now`, and the status to publish.
pub fn plan(cluster: &Cluster, observed: &Observed, now: Timestamp) -> Plan {
    let world = World::new(cluster, observed, now);
    let mut draft = Draft::default();
    if cluster.stopping {
        gateway::stop(&world, &mut draft);
        roles::stop(&world, &mut draft);
    } else {
        gateway::plan(&world, &mut draft);
        roles::plan(&world, &mut draft);
    }
    let status = status::of(&world, observed.status.as_ref(), &draft);
    draft.finish(status, now)
}
