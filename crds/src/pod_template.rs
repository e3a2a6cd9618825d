//! `podTemplate`: what a user adds to the pods that the operator makes.
//!
//! It is kept as it was written. Rust types of Kubernetes drop what they do not know, and a misspelt field must be
//! told; the operator reads it into those types and names what is lost. The schema is typed where Kubernetes' own is
//! small. Written out whole, two pod templates are more than the 256 KiB of annotations that `kubectl apply` keeps a
//! definition in.

// Doc comments are printed as plain text by `kubectl explain`. KubeSchema clones each struct into a function,
// where `pub` reaches nobody.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, unreachable_pub)]

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    api::core::v1::{
        ContainerPort, EnvFromSource, EnvVar, LocalObjectReference, PodResourceClaim, ResourceClaim,
        Toleration, TopologySpreadConstraint, VolumeMount,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Part of a PodTemplateSpec, as it was written.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(transparent)]
pub struct PodTemplate(pub Map<String, Value>);

impl JsonSchema for PodTemplate {
    fn schema_name() -> Cow<'static, str> {
        "PodTemplate".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Fields::json_schema(generator)
    }
}

/// What a PodTemplate may hold.
#[derive(KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "only the schema is used")]
struct Fields {
    /// Labels and annotations that the pods get beside the operator's. Default: none.
    /// Example: {labels: {team: search}}.
    metadata: Option<Metadata>,
    /// What the pods get beside what the operator sets; lists are merged by name, as kubectl patch does.
    /// Default: none. Example: {nodeSelector: {gpu: h200}}.
    spec: Option<Pod>,
}

/// Labels and annotations.
#[derive(KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "only the schema is used")]
struct Metadata {
    /// Labels. Those of shoal.dev and app.kubernetes.io/{name,component,managed-by} are the operator's.
    /// Default: none. Example: {team: search}.
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new("self.all(key, !key.startsWith('shoal.dev/') && !(key in ['app.kubernetes.io/name', 'app.kubernetes.io/component', 'app.kubernetes.io/managed-by']))")
        .message("must be other labels than shoal.dev/... and app.kubernetes.io/name, component and managed-by, which are the operator's"))]
    labels: Option<BTreeMap<String, String>>,
    /// Annotations. Those of shoal.dev are the operator's. Default: none. Example: {sidecar.istio.io/inject: "false"}.
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new("self.all(key, !key.startsWith('shoal.dev/'))")
        .message("must be other annotations than shoal.dev/..., which are the operator's"))]
    annotations: Option<BTreeMap<String, String>>,
}

/// Where pods run and with what.
#[derive(KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "only the schema is used")]
struct Pod {
    /// Labels that a node must have. Default: none. Example: {node.kubernetes.io/instance-type: gpu-large}.
    node_selector: Option<BTreeMap<String, String>>,
    /// Taints that the pods tolerate. Default: none. Example: [{key: nvidia.com/gpu, operator: Exists}].
    tolerations: Option<Vec<Toleration>>,
    /// Nodes and neighbours that the pods prefer or need; its fields are those of kubectl explain pod.spec.affinity.
    /// Default: none. Example: {nodeAffinity: {...}}.
    #[schemars(schema_with = "opaque")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    affinity: Option<Value>,
    /// How the pods spread, merged by topologyKey; one without a labelSelector counts the cluster's own pods.
    /// Default: over nodes, as far as it goes. Example: [{topologyKey: topology.kubernetes.io/zone, maxSkew: 1, whenUnsatisfiable: DoNotSchedule}].
    topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// PriorityClass of the pods. Default: the namespace's. Example: serving.
    priority_class_name: Option<String>,
    /// RuntimeClass of the pods. Default: the node's. Example: nvidia.
    runtime_class_name: Option<String>,
    /// Scheduler of the pods. Default: default-scheduler. Example: volcano.
    scheduler_name: Option<String>,
    /// Secrets in the same namespace with which the images are pulled. Default: none. Example: [{name: registry}].
    image_pull_secrets: Option<Vec<LocalObjectReference>>,
    /// Devices by dynamic resource allocation, for use in resources.claims of a container. Default: none.
    /// Example: [{name: gpu, resourceClaimTemplateName: one-gpu}].
    resource_claims: Option<Vec<PodResourceClaim>>,
    /// Volumes beside the operator's, which are called fleet, model and tls. Default: none.
    /// Example: [{name: scratch, emptyDir: {}}].
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(volume, !(volume.name in ['fleet', 'model', 'tls']))")
        .message("must be other volumes than fleet, model and tls, which are the operator's"))]
    volumes: Option<Vec<Volume>>,
    /// Containers that run before the others, or beside them with restartPolicy Always. Default: none.
    /// Example: [{name: warm, image: tools:1, command: [warm]}].
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(container, !(container.name in ['engine', 'gateway']) && has(container.image))")
        .message("must be containers with an image, and with other names than engine and gateway"))]
    init_containers: Option<Vec<Container>>,
    /// The container engine (of a gateway: gateway), to which resources, env, envFrom, volumeMounts and volumeDevices
    /// can be added, and containers beside it. Default: none.
    /// Example: [{name: engine, resources: {limits: {nvidia.com/gpu: 1}}}].
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(container, container.name in ['engine', 'gateway'] ? !has(container.image) && !has(container.command) && !has(container.args) && !has(container.ports) : has(container.image))")
        .message("must be the operator's own container without image, command, args and ports, or others with an image; the own one's image is set by the field image beside podTemplate"))]
    containers: Option<Vec<Container>>,
}

/// A volume: a name and one source; its fields are those of kubectl explain pod.spec.volumes.
#[derive(KubeSchema, Serialize, Deserialize)]
#[allow(dead_code, reason = "only the schema is used")]
struct Volume {
    /// Name that volumeMounts refer to. Required. Example: scratch.
    #[schemars(length(max = 63))]
    name: String,
    #[serde(flatten)]
    source: BTreeMap<String, Value>,
}

/// A container; fields that are not listed are those of kubectl explain pod.spec.containers.
#[derive(KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code, reason = "only the schema is used")]
struct Container {
    /// Name. Required. Example: engine.
    #[schemars(length(max = 63))]
    name: String,
    /// Image of a container of one's own. Default: none. Example: exporter:1.
    image: Option<String>,
    /// Program of a container of one's own. Default: that of its image. Example: [exporter].
    command: Option<Vec<String>>,
    /// Arguments of a container of one's own. Default: those of its image. Example: [--port=9400].
    args: Option<Vec<String>>,
    /// Ports of a container of one's own. Default: none. Example: [{containerPort: 9400}].
    ports: Option<Vec<ContainerPort>>,
    /// Cores, memory and devices. Default: what the operator requests. Example: {limits: {nvidia.com/gpu: 1}}.
    resources: Option<Resources>,
    /// Environment variables, merged by name. Default: none. Example: [{name: SHOAL_LOG, value: debug}].
    env: Option<Vec<EnvVar>>,
    /// ConfigMaps and Secrets whose keys become environment variables. Default: none.
    /// Example: [{configMapRef: {name: nccl}}].
    env_from: Option<Vec<EnvFromSource>>,
    /// Where volumes appear, merged by mountPath. Default: none. Example: [{name: scratch, mountPath: /scratch}].
    volume_mounts: Option<Vec<VolumeMount>>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// What a container asks of its node.
#[derive(KubeSchema, Serialize, Deserialize)]
#[allow(dead_code, reason = "only the schema is used")]
struct Resources {
    /// Most that it gets; devices belong here. Default: none. Example: {nvidia.com/gpu: 1, rdma/hca: 1}.
    limits: Option<BTreeMap<String, IntOrString>>,
    /// What a node must have left. Default: the limits, and what the operator requests. Example: {memory: 64Gi}.
    requests: Option<BTreeMap<String, IntOrString>>,
    /// Names of the pod's resourceClaims that it uses. Default: none. Example: [{name: gpu}].
    claims: Option<Vec<ResourceClaim>>,
}

fn opaque(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
