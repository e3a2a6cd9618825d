//! Keys of labels and annotations, and what finds whose objects.
//!
//! No selector of a Service, policy or budget contains a role: a role is state, and a pod whose role changes
//! must stay what it is to all of them.

use std::collections::BTreeMap;

use shoal_plan::Role;

pub use shoal_crds::labels::{
    CLUSTER, COMPONENT, DRAINING_SINCE, INSTANCE, MANAGED_BY, NAME, OPERATOR, ROLE,
};

/// Field manager of everything but status.
pub const MANAGER: &str = "shoal-operator";
/// Field manager of status.
pub const STATUS_MANAGER: &str = "shoal-operator-status";

/// Digest of the model that a pod serves or, for a gateway, whose text it speaks.
pub const MODEL: &str = "shoal.dev/model";

/// The planner's hash of what the instance was made from.
pub const TEMPLATE: &str = "shoal.dev/template-hash";
/// Crashes in a row of the pods that this one replaced.
pub const CRASHES: &str = "shoal.dev/crashes";
/// Hash over the whole of what was rendered: tells that a field which is no longer rendered must go.
pub const RENDERED: &str = "shoal.dev/rendered-hash";
/// On the gateway's Deployment: the model and port it was made for, as JSON.
pub const GATEWAY_TEMPLATE: &str = "shoal.dev/gateway-template";
/// On the gateway's pods: the fleet secret they have read, by UID; a new secret rolls them. On a fleet secret that was
/// put back: the UID of the first one with its value.
pub const FLEET_SECRET: &str = "shoal.dev/fleet-secret";
/// On pods of instances and gateways: their gRPC is within TLS, with certificates on both sides. Written with the
/// pod and never changed.
pub const TLS: &str = "shoal.dev/tls";
pub const MUTUAL: &str = "mutual";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    Instance,
    Gateway,
}

impl Component {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instance => shoal_crds::labels::INSTANCE_COMPONENT,
            Self::Gateway => shoal_crds::labels::GATEWAY_COMPONENT,
        }
    }

    /// The operator's own container in a pod of it.
    pub fn container(self) -> &'static str {
        match self {
            Self::Instance => "engine",
            Self::Gateway => "gateway",
        }
    }
}

/// Whether a label or annotation is the operator's alone.
pub fn is_held(key: &str) -> bool {
    key.starts_with("shoal.dev/") || [MANAGED_BY, NAME, COMPONENT].contains(&key)
}

/// Selector of every object that this operator keeps.
pub fn managed() -> String {
    format!("{MANAGED_BY}={MANAGER}")
}

/// Labels of an object of a cluster.
pub fn object(cluster: &str) -> BTreeMap<String, String> {
    map([(MANAGED_BY, MANAGER), (NAME, "shoal"), (CLUSTER, cluster)])
}

/// What selects the pods of a cluster's component, and nothing else in its namespace.
pub fn selector(cluster: &str, component: Component) -> BTreeMap<String, String> {
    map([(CLUSTER, cluster), (COMPONENT, component.as_str())])
}

/// Labels that pods of a component have beside those of every object.
pub fn pod(cluster: &str, component: Component, model: &str) -> BTreeMap<String, String> {
    let mut labels = object(cluster);
    labels.extend(map([(COMPONENT, component.as_str()), (MODEL, model)]));
    labels
}

/// All labels of an instance's pod.
pub fn instance(cluster: &str, name: &str, role: Role, model: &str) -> BTreeMap<String, String> {
    let mut labels = pod(cluster, Component::Instance, model);
    labels.extend(map([(INSTANCE, name), (ROLE, role.as_str())]));
    labels
}

/// The selector by which a gateway finds the instances that it may call.
pub fn callable(cluster: &str, model: &str) -> String {
    format!("{CLUSTER}={cluster},{COMPONENT}={},{MODEL}={model}", Component::Instance.as_str())
}

/// The selector by which an autoscaler finds a role's pods. For metrics alone: a pod leaves it when its role changes.
pub fn of_role(cluster: &str, role: Role) -> String {
    format!("{CLUSTER}={cluster},{COMPONENT}={},{ROLE}={role}", Component::Instance.as_str())
}

/// The role that a pod is to have.
pub fn role(labels: &BTreeMap<String, String>) -> Option<Role> {
    let text = labels.get(ROLE)?;
    Role::ALL.into_iter().find(|role| role.as_str() == text)
}

pub(crate) fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
