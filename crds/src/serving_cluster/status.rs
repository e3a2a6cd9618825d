//! What is true. Nothing in it moves while nothing changes.

// Doc comments are printed as plain text by `kubectl explain`. KubeSchema clones each struct into a function,
// where `pub` reaches nobody.
#![allow(clippy::doc_markdown, unreachable_pub)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Condition types that a `ServingCluster` carries: always the first three.
pub mod condition {
    /// The endpoint answers requests.
    pub const READY: &str = "Ready";
    /// The fleet is on its way to what the spec asks for.
    pub const PROGRESSING: &str = "Progressing";
    /// Something that should run does not, or does not answer.
    pub const DEGRADED: &str = "Degraded";
    /// A person has to do something; only there while it is so.
    pub const STALLED: &str = "Stalled";
    /// What Progressing says while it is true and nothing is Stalled, under the name that kstatus looks for; only
    /// there while it is so.
    pub const RECONCILING: &str = "Reconciling";
}

/// What the operator last saw.
// The API server writes this default into a new object. Without it, whoever waits for an object by the rules of
// kstatus would take one that no operator has seen for complete.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = { "observedGeneration": -1 }))]
pub struct ServingClusterStatus {
    /// The metadata.generation this status speaks of. Default: -1 until first seen. Example: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Progressing and Degraded, each with a reason and a message; Stalled beside them while a person
    /// has to do something, for example because a name is taken or a quota used up; else Reconciling while
    /// Progressing is True. Default: empty until first seen.
    /// Example: [{type: Ready, status: "True", reason: Serving}].
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Prefill instances. Default: zeros. Example: {desired: 1, ready: 1, summary: 1/1}.
    #[serde(default)]
    pub prefill: RoleStatus,
    /// Decode instances. Default: zeros. Example: {desired: 2, ready: 2, summary: 2/2}.
    #[serde(default)]
    pub decode: RoleStatus,
    /// How far the model's files are that instances fetch at the moment. Default: absent while none does.
    /// Example: {phase: Downloading, instances: 2, bytesDone: 62000000, bytesTotal: 200000000}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loading: Option<Loading>,
    /// Base URL of the OpenAI API while the gateway is up. Default: absent. Example: http://127.0.0.1:8000/v1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

impl ServingClusterStatus {
    /// The condition of this type, if it was ever set.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == kind)
    }

    /// Whether the condition of this type is True.
    pub fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == "True")
    }
}

/// Files of the model on their way to instances.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Loading {
    /// Downloading; Verifying while what is there already is read again; Waiting for another pod that fetches into the
    /// same claim. Required. Example: Downloading.
    pub phase: String,
    /// Instances that fetch. Required. Example: 2.
    pub instances: i32,
    /// Bytes that these instances have, in hundredths of the whole. Required. Example: 62000000.
    pub bytes_done: i64,
    /// Bytes that they need. Required. Example: 200000000.
    pub bytes_total: i64,
}

/// Instances of one role.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RoleStatus {
    /// Instances that the spec asks for. Default: 0. Example: 2.
    #[serde(default)]
    pub desired: i32,
    /// Instances that admit requests. Default: 0. Example: 2.
    #[serde(default)]
    pub ready: i32,
    /// ready/desired, for printer columns. Default: empty. Example: 2/2.
    #[serde(default)]
    pub summary: String,
}

impl RoleStatus {
    pub fn new(desired: i32, ready: i32) -> Self {
        Self { desired, ready, summary: format!("{ready}/{desired}") }
    }
}
