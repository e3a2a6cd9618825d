//! What processes are made of. Two templates with one hash make processes that need not replace each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shoal_crds::{EngineSpec, ModelSpec, PodTemplate, ServingClusterSpec};

/// What an engine instance is made of. No role: a role is state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    pub model: ModelSpec,
    pub engine: EngineSpec,
    /// Container image; empty where instances are programs of one machine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// gRPC is within mutual TLS. No certificate is part of it: those change while the process runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
}

impl Template {
    /// Without TLS. `image` is what the host starts where the spec names none.
    pub fn of(spec: &ServingClusterSpec, image: &str) -> Self {
        let image = spec.engine.image.as_deref().unwrap_or(image).to_owned();
        Self { model: spec.model.clone(), engine: spec.engine.clone(), image, tls: false }
    }

    /// 16 hex digits over every field that an engine is started with.
    pub fn hash(&self) -> String {
        // Destructured without a rest pattern: a new field must be placed here or the build fails.
        let Self { model, engine, image, tls } = self;
        let EngineSpec {
            device,
            threads,
            kv_memory,
            max_batch,
            chunk,
            max_context,
            // Resolved into `image`.
            image: _,
            // How an image reaches a node makes no other process.
            image_pull_policy: _,
            pod_template,
        } = engine;
        let pod = pod_template.as_ref().map(|PodTemplate(pod)| format!("\n{}", sorted(pod)));
        // Nothing for a setting that is off, so that its coming replaced no process.
        let tls = if *tls { "\ntls" } else { "" };
        digest(&format!(
            "{}\n{device:?}\n{threads:?}\n{kv_memory}\n{max_batch}\n{chunk}\n{max_context:?}\n{image}{}{tls}",
            model_digest(model),
            pod.unwrap_or_default()
        ))
    }
}

/// What a gateway is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayTemplate {
    pub model: ModelSpec,
    pub port: u16,
}

impl GatewayTemplate {
    /// A port outside 1 to 65535, which the resource's rules refuse, is taken as 0.
    pub fn of(spec: &ServingClusterSpec) -> Self {
        Self { model: spec.model.clone(), port: u16::try_from(spec.gateway.port).unwrap_or(0) }
    }
}

/// 16 hex digits over name and source: a gateway serves only instances of its own model.
pub fn model_digest(model: &ModelSpec) -> String {
    let ModelSpec { name, source: shoal_crds::ModelSource { path, claim, host_path, download } } = model;
    let claim = claim.as_deref().unwrap_or_default();
    let folder = host_path.as_ref().map(|folder| format!("\n{folder}"));
    // Where files come from is no part of what they are.
    let files = download.iter().flat_map(|download| &download.files);
    let files = files.fold(String::new(), |files, file| format!("{files}\n{} {}", file.sha256, file.name()));
    digest(&format!("{}:{name}\n{path}\n{claim}{}{files}", name.len(), folder.unwrap_or_default()))
}

/// JSON in which the order of keys says nothing.
fn sorted(fields: &Map<String, Value>) -> String {
    fn value(found: &Value) -> Value {
        match found {
            Value::Object(fields) => Value::Object(object(fields)),
            Value::Array(items) => items.iter().map(value).collect(),
            other => other.clone(),
        }
    }
    fn object(fields: &Map<String, Value>) -> Map<String, Value> {
        let ordered: BTreeMap<&String, &Value> = fields.iter().collect();
        ordered.into_iter().map(|(key, found)| (key.clone(), value(found))).collect()
    }
    Value::Object(object(fields)).to_string()
}

fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().chars().take(16).collect()
}
