//! What a user asks for.

// Doc comments are printed as plain text by `kubectl explain`. KubeSchema clones each struct into a function,
// where `pub` reaches nobody.
#![allow(clippy::doc_markdown, unreachable_pub)]

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{Download, ServingClusterStatus};
use crate::{
    PodTemplate,
    quantity::{self, QuantityError},
};

/// Characters of `metadata.name`: instance names add a suffix and must stay DNS labels.
pub const MAX_NAME_LENGTH: usize = 40;
/// Instances of both roles together.
pub const MAX_REPLICAS: i32 = 4096;

/// What to serve and with how many instances of each role.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "shoal.dev",
    version = "v1alpha1",
    kind = "ServingCluster",
    namespaced,
    doc = "ServingCluster serves one model with prefill and decode instances behind an OpenAI-compatible gateway.",
    status = "ServingClusterStatus",
    derive = "PartialEq",
    shortname = "shc",
    category = "shoal",
    cel,
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be at most 40 characters: a lower-case letter, then lower-case letters, digits or '-', ending in a letter or digit"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the endpoint answers requests"),
    printcolumn(name = "Prefill", type_ = "string", json_path = ".status.prefill.summary",
        description = "Prefill instances, ready/desired"),
    printcolumn(name = "Decode", type_ = "string", json_path = ".status.decode.summary",
        description = "Decode instances, ready/desired"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model.name",
        description = "Name under which the model is served"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it is ready or not"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1,
        description = "Base URL of the OpenAI API")
)]
#[x_kube(validation = Rule::new("self.prefill.replicas + self.decode.replicas <= 4096")
    .message("prefill.replicas and decode.replicas together must be at most 4096"))]
#[serde(rename_all = "camelCase")]
pub struct ServingClusterSpec {
    /// The model to serve. Required. Example: {name: smollm2, source: {path: /models/smollm2.gguf}}.
    pub model: ModelSpec,
    /// Settings of every instance, the same for both roles. Changing one replaces the instances, one per
    /// role at a time, each new one ready before an old one goes. Default: every field's own default.
    /// Example: {threads: 4, kvMemory: 2Gi}.
    #[serde(default)]
    pub engine: EngineSpec,
    /// Instances that read prompts. Default: {replicas: 1}. Example: {replicas: 2}.
    #[serde(default)]
    pub prefill: PrefillSpec,
    /// Instances that produce tokens. Default: {replicas: 1}. Example: {replicas: 2}.
    #[serde(default)]
    pub decode: DecodeSpec,
    /// The process that speaks the OpenAI API. Default: {port: 8000, replicas: 2}. Example: {port: 9000}.
    #[serde(default)]
    pub gateway: GatewaySpec,
}

/// The model to serve.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// Name that clients send as `model`: 1 to 128 characters. Required. Example: smollm2.
    #[schemars(length(max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$')")
        .message("must be 1 to 128 letters, digits, '.', '_', '/', ':' or '-', starting with a letter or digit"))]
    pub name: String,
    /// Where the weights are. Required. Example: {path: /models/smollm2.gguf}.
    pub source: ModelSource,
}

/// Where the weights are.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[x_kube(validation = Rule::new("!(has(self.claim) && has(self.hostPath))")
    .message("must be one of claim and hostPath, not both"))]
#[x_kube(validation = Rule::new("!(has(self.download) && has(self.hostPath))")
    .message("must be one of download and hostPath, not both"))]
#[x_kube(validation = Rule::new("!has(self.download) || self.path.matches('^(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,199})+$')")
    .message("path must be made of letters, digits, '.', '_' and '-' between slashes if download is given, with no part that begins with '.'"))]
#[serde(rename_all = "camelCase")]
pub struct ModelSource {
    /// Absolute path of a GGUF file, or of a folder with safetensors files and config.json: on the machine; in a
    /// cluster within claim or hostPath, where download puts it or, without any, in the images of engine and gateway. Required. Example: /models/smollm2.gguf.
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && self.size() <= 4096 && !('..' in self.split('/'))")
        .message("must be an absolute path of at most 4096 characters without '..', for example /models/smollm2.gguf"))]
    pub path: String,
    /// PersistentVolumeClaim in the resource's own namespace that holds the model; every instance and gateway
    /// mounts it, read-only but for the step that downloads. In a cluster only. Default: none. Example: models.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$')")
        .message("must be the name of a PersistentVolumeClaim: at most 253 lower-case letters, digits, '-' or '.'"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Folder of the node that holds the model; every instance and gateway mounts it, read-only, so each node that they
    /// may run on needs it. The restricted and baseline Pod Security Standards forbid it: the namespace must allow
    /// privileged pods. In a cluster only. Default: none. Example: /srv/models.
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') && self.size() <= 4096 && !('..' in self.split('/'))")
        .message("must be an absolute path of at most 4096 characters without '..', for example /srv/models"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// Files to fetch before a process starts: into the claim, if there is one, once for all pods; else for each
    /// pod to its node's disk. In a cluster only. Default: none, the model is there.
    /// Example: {files: [{url: "s3://models/smollm2.gguf", sha256: 6a1a2f…}], credentials: model-store}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<Download>,
}

/// What computes: one value until GPUs are served.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub enum Device {
    /// The machine's processor, with the widest vector instructions found at start.
    #[default]
    Cpu,
}

/// When nodes pull the image: Always, IfNotPresent or Never. A change applies to pods made after it. In a cluster only.
/// Default: the operator's own setting. Example: Always.
// The schema of an optional enum has the words of the enum, not those of its field.
#[derive(schemars::JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// Before each start.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Not at all: it must be there.
    Never,
}

impl ImagePullPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Settings of every instance, the same for both roles.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[x_kube(validation = Rule::new("self.chunk >= self.maxBatch")
    .message("engine.chunk must be at least engine.maxBatch, so that a step has room for one token of every running sequence"))]
#[serde(rename_all = "camelCase")]
pub struct EngineSpec {
    /// What computes. Default: cpu, the only value. Example: cpu.
    #[serde(default)]
    pub device: Device,
    /// Compute threads of each instance, 1 to 256; in a cluster each also requests as many cores, unless podTemplate
    /// requests another amount of cpu. Default: on one machine its cores shared evenly among the instances that the
    /// spec asks for, at least 1; in a cluster every core that the pod may use. Example: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 256").message("must be 1 to 256"))]
    pub threads: Option<i32>,
    /// Memory for the KV cache of each instance, in bytes with an optional Ki, Mi, Gi or Ti; 16Mi to 4Ti. In a
    /// cluster each instance requests it.
    /// Default: 512Mi. Example: 2Gi.
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,14}(Ki|Mi|Gi|Ti)?$') && quantity(self).compareTo(quantity('16Mi')) >= 0 && quantity(self).compareTo(quantity('4Ti')) <= 0")
        .message("must be a whole number of bytes from 16Mi to 4Ti with an optional Ki, Mi, Gi or Ti, for example 512Mi"))]
    #[serde(default = "EngineSpec::default_kv_memory")]
    pub kv_memory: String,
    /// Most sequences that one instance computes together, 1 to 512. Default: 32. Example: 64.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 512").message("must be 1 to 512"))]
    #[serde(default = "EngineSpec::default_max_batch")]
    pub max_batch: i32,
    /// Most prompt tokens computed in one step, a multiple of 64 (one page) from 64 to 8192; smaller keeps
    /// running answers smoother, larger reads prompts faster. Default: 512. Example: 1024.
    #[x_kube(validation = Rule::new("self >= 64 && self <= 8192 && self % 64 == 0")
        .message("must be a multiple of 64 from 64 to 8192"))]
    #[serde(default = "EngineSpec::default_chunk")]
    pub chunk: i32,
    /// Most tokens of a prompt and its answer together, 64 to 1048576. Default: what the model was trained
    /// for. Example: 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 64 && self <= 1048576")
        .message("must be 64 to 1048576"))]
    pub max_context: Option<i32>,
    /// Container image, with shoal-engine on its path. In a cluster only. Default: the operator's own setting.
    /// Example: registry.example.com/shoal-engine:1.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9][^ ]{0,511}$')")
        .message("must be an image reference of at most 512 characters without spaces"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// When nodes pull the image: Always, IfNotPresent or Never. A change applies to pods made after it. In a cluster
    /// only. Default: the operator's own setting. Example: Always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Added to the pods' own template: scheduling, devices, labels, environment, volumes, sidecars. A change
    /// replaces the instances as any other setting does. In a cluster only.
    /// Default: none. Example: {spec: {nodeSelector: {gpu: h200}}}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

impl Default for EngineSpec {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            threads: None,
            kv_memory: Self::default_kv_memory(),
            max_batch: Self::default_max_batch(),
            chunk: Self::default_chunk(),
            max_context: None,
            image: None,
            image_pull_policy: None,
            pod_template: None,
        }
    }
}

impl EngineSpec {
    fn default_kv_memory() -> String {
        "512Mi".to_owned()
    }

    fn default_max_batch() -> i32 {
        32
    }

    fn default_chunk() -> i32 {
        512
    }

    /// `kv_memory` in bytes.
    ///
    /// # Errors
    /// When it is not a whole number of bytes with an optional binary suffix.
    pub fn kv_memory_bytes(&self) -> Result<u64, QuantityError> {
        quantity::bytes(&self.kv_memory)
    }
}

fn one_replica() -> i32 {
    1
}

/// Instances that read prompts.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PrefillSpec {
    /// Number of prefill instances, 0 to 4095; with 0 the decode instances read prompts too. Default: 1.
    /// Example: 2.
    #[x_kube(validation = Rule::new("self >= 0 && self <= 4095").message("must be 0 to 4095"))]
    #[serde(default = "one_replica")]
    pub replicas: i32,
}

impl Default for PrefillSpec {
    fn default() -> Self {
        Self { replicas: one_replica() }
    }
}

/// Instances that produce tokens.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DecodeSpec {
    /// Number of decode instances, 1 to 4096. Default: 1. Example: 2.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 4096").message("must be 1 to 4096"))]
    #[serde(default = "one_replica")]
    pub replicas: i32,
}

impl Default for DecodeSpec {
    fn default() -> Self {
        Self { replicas: one_replica() }
    }
}

/// The process that speaks the OpenAI API.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// TCP port of the OpenAI API, 1 to 65535: of the machine's loopback, or of the gateway's Service. Default: 8000. Example: 9000.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 65535").message("must be 1 to 65535"))]
    #[serde(default = "GatewaySpec::default_port")]
    pub port: i32,
    /// Number of gateway pods, 1 to 64; with two or more the loss of a node leaves one. In a cluster only. Default: 2.
    /// Example: 4.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 64").message("must be 1 to 64"))]
    #[serde(default = "GatewaySpec::default_replicas")]
    pub replicas: i32,
    /// Container image, with shoal-gateway on its path. In a cluster only. Default: the operator's own setting.
    /// Example: registry.example.com/shoal-gateway:1.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9][^ ]{0,511}$')")
        .message("must be an image reference of at most 512 characters without spaces"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// When nodes pull the image: Always, IfNotPresent or Never. A change applies to pods made after it. In a cluster
    /// only. Default: the operator's own setting. Example: Always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Added to the pods' own template: scheduling, devices, labels, environment, volumes, sidecars. A change
    /// rolls the gateways and touches no instance. In a cluster only.
    /// Default: none. Example: {spec: {nodeSelector: {gpu: h200}}}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

impl Default for GatewaySpec {
    fn default() -> Self {
        Self {
            port: Self::default_port(),
            replicas: Self::default_replicas(),
            image: None,
            image_pull_policy: None,
            pod_template: None,
        }
    }
}

impl GatewaySpec {
    fn default_port() -> i32 {
        8000
    }

    /// Two, so that the loss of a node leaves one.
    fn default_replicas() -> i32 {
        2
    }
}
