//! What a cluster is made of beside its instances: rendered here, one file per kind, without a client.
//!
//! ```text
//! Fleet + GatewayTemplate ──render──> Children<Prepared> ──apply──> Children<Applied>
//! ```
//!
//! Every object is complete: server-side apply takes a field away that is no longer rendered.

mod access;
mod budget;
mod certificates;
mod container;
mod download;
mod gateway;
mod instance;
mod overlay;
mod policy;
mod role;
mod secret;
mod service;

use std::{fmt::Debug, marker::PhantomData};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{Role, RoleBinding},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use shoal_crds::ServingRole;
use shoal_plan::GatewayTemplate;

use crate::{fleet::Fleet, labels};

pub use certificates::{authority_secret, certificate_secret};
pub use container::{GRPC_PORT, METRICS_PORT};
pub use instance::{Instance, pod as instance_pod};
pub use overlay::{Overlay, OverlayError};
#[cfg(test)]
pub(crate) use secret::known;
pub use secret::{KEY as SECRET_KEY, fleet_secret, fleet_secret_again};

/// A kind that is written by server-side apply.
pub trait Child:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + k8s_openapi::Resource
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Child for K where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + k8s_openapi::Resource
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// Rendered, not written.
#[derive(Debug)]
pub struct Prepared;
/// What the API server has acknowledged, or was seen to have.
#[derive(Debug)]
pub struct Applied;

/// Every object of a cluster but its pods and its secrets.
#[derive(Debug)]
pub struct Children<Stage> {
    pub prefill_role: ServingRole,
    pub decode_role: ServingRole,
    pub account: ServiceAccount,
    pub role: Role,
    pub binding: RoleBinding,
    pub instances_policy: NetworkPolicy,
    pub gateway_policy: NetworkPolicy,
    pub instances_service: Service,
    pub gateway_service: Service,
    pub budget: PodDisruptionBudget,
    pub gateway: Deployment,
    pub(crate) stage: PhantomData<Stage>,
}

impl<Stage> Children<Stage> {
    pub fn role(&self, role: shoal_plan::Role) -> &ServingRole {
        match role {
            shoal_plan::Role::Prefill => &self.prefill_role,
            shoal_plan::Role::Decode => &self.decode_role,
        }
    }
}

impl Children<Prepared> {
    /// `gateway` is what the gateway is to be made of now; `secret_uid` the fleet secret that it reads.
    pub fn render(fleet: &Fleet, gateway: &GatewayTemplate, secret_uid: &str) -> Self {
        Self {
            // Not stamped: a count that somebody scaled is not a difference of ours.
            prefill_role: role::serving_role(fleet, shoal_plan::Role::Prefill),
            decode_role: role::serving_role(fleet, shoal_plan::Role::Decode),
            account: stamped(access::account(fleet)),
            role: stamped(access::role(fleet)),
            binding: stamped(access::binding(fleet)),
            instances_policy: stamped(policy::instances(fleet)),
            gateway_policy: stamped(policy::gateway(fleet)),
            instances_service: stamped(service::instances(fleet)),
            gateway_service: stamped(service::gateway(fleet, gateway)),
            budget: stamped(budget::gateway(fleet)),
            gateway: stamped(gateway::deployment(fleet, gateway, secret_uid)),
            stage: PhantomData,
        }
    }
}

/// Notes on the object a hash over the rest of it.
fn stamped<K: Child>(mut object: K) -> K {
    // A value that serde_json cannot write does not occur in these types; the stamp would then be constant.
    let text = serde_json::to_string(&object).unwrap_or_default();
    let hash: String = blake3::hash(text.as_bytes()).to_hex().chars().take(16).collect();
    kube::ResourceExt::annotations_mut(&mut object).insert(labels::RENDERED.to_owned(), hash);
    object
}

#[cfg(test)]
pub(crate) mod tests;
