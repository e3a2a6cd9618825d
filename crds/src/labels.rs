//! Labels and annotations by which others find and understand the objects of a cluster.

pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const NAME: &str = "app.kubernetes.io/name";
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Name of the `ServingCluster`.
pub const CLUSTER: &str = "shoal.dev/cluster";
/// The planner's name of an instance; pods that replace each other share it. For people: it is in the pod's
/// name too.
pub const INSTANCE: &str = "shoal.dev/instance";
/// For people and other routers. The engine's own word is what counts.
pub const ROLE: &str = "shoal.dev/role";
/// Since when the instance is to admit nothing new; written before the engine is told.
pub const DRAINING_SINCE: &str = "shoal.dev/draining-since";

/// The operator's own pods, as its chart labels them; network policies let them reach engines.
pub const OPERATOR: &str = "shoal-operator";
/// Values of the component label.
pub const INSTANCE_COMPONENT: &str = "instance";
pub const GATEWAY_COMPONENT: &str = "gateway";
