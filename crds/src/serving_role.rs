//! `ServingRole`: the number of instances of one role, apart, because a resource has one `/scale` and a
//! `ServingCluster` has two roles. The operator makes it; people and autoscalers scale it.

// Doc comments are printed as plain text by `kubectl explain`. KubeSchema clones each struct into a function,
// where `pub` reaches nobody.
// Columns have equal types.
#![allow(clippy::doc_markdown, clippy::duplicated_attributes, unreachable_pub)]

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// On a ServingRole: the count of its ServingCluster that it last followed. While the two are equal the
/// ServingRole's own count rules; when they differ, somebody has edited the ServingCluster.
pub const FOLLOWED_REPLICAS: &str = "shoal.dev/followed-replicas";

/// How many instances of one role a ServingCluster has.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[kube(
    group = "shoal.dev",
    version = "v1alpha1",
    kind = "ServingRole",
    namespaced,
    doc = "ServingRole is the number of prefill or decode instances of a ServingCluster, made by the operator as <cluster>-prefill and <cluster>-decode; kubectl scale and autoscalers change it.",
    status = "ServingRoleStatus",
    derive = "PartialEq",
    shortname = "shr",
    category = "shoal",
    cel,
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".metadata.labels.shoal\\.dev/cluster",
        description = "The ServingCluster that it belongs to"
    ),
    printcolumn(
        name = "Role",
        type_ = "string",
        json_path = ".spec.role",
        description = "prefill or decode"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".spec.replicas",
        description = "Instances that are asked for"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Instances that admit requests"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Whether all of them are ready, or why not"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self.role != 'decode' || self.replicas >= 1")
    .message("replicas of the role decode must be at least 1: without decode nothing is served"))]
#[x_kube(validation = Rule::new("self.role != 'prefill' || self.replicas <= 4095")
    .message("replicas of the role prefill must be at most 4095: one instance must decode"))]
#[serde(rename_all = "camelCase")]
pub struct ServingRoleSpec {
    /// What the instances do. It never changes. Required. Example: decode.
    #[x_kube(validation = Rule::new("self == oldSelf").message("must be what it was; a role's count can change, its role cannot"))]
    pub role: RoleName,
    /// Number of instances, 0 to 4095 of prefill, 1 to 4096 of decode, and both together at most 4096. Set it, or let
    /// kubectl scale or a HorizontalPodAutoscaler do so; it stays until the ServingCluster's own count is edited.
    /// Required. Example: 3.
    #[x_kube(validation = Rule::new("self >= 0 && self <= 4096").message("must be 0 to 4096"))]
    pub replicas: i32,
}

/// What instances of a role do.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum RoleName {
    /// They read prompts.
    Prefill,
    /// They produce tokens.
    Decode,
}

/// What the operator last saw.
// As in a ServingCluster: what no operator has seen is not complete.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = { "observedGeneration": -1 }))]
pub struct ServingRoleStatus {
    /// The metadata.generation this status speaks of. Default: -1 until first seen. Example: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Instances of the role that there are, also those that load or drain. Default: 0. Example: 3.
    #[serde(default)]
    pub replicas: i32,
    /// Instances of the role that admit requests. Default: 0. Example: 3.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Label selector of the role's pods, by which autoscalers find their metrics. Default: empty until first seen.
    /// Example: shoal.dev/cluster=chat,shoal.dev/role=decode.
    #[serde(default)]
    pub selector: String,
    /// Ready, with a reason and a message; Stalled beside it while the count is not followed. Default: empty until
    /// first seen. Example: [{type: Ready, status: "True", reason: AllReady}].
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl ServingRoleStatus {
    /// The condition of this type, if it was ever set.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == kind)
    }
}

/// Kind and group as constants, as every built-in type has them.
impl k8s_openapi::Resource for ServingRole {
    const API_VERSION: &'static str = crate::API_VERSION;
    const GROUP: &'static str = "shoal.dev";
    const KIND: &'static str = "ServingRole";
    const VERSION: &'static str = "v1alpha1";
    const URL_PATH_SEGMENT: &'static str = "servingroles";
    type Scope = NamespaceResourceScope;
}
