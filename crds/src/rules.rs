//! The rules of a `ServingCluster`, checked here as an API server checks them.
//!
//! The schema is made and its rules are compiled once: it takes as long as hundreds of checks, and the operator
//! checks at every look.

use std::sync::LazyLock;

use kube::core::cel::{CompiledSchema, ValidationErrors, compile_schema, validate_compiled};
use serde_json::Value;

use crate::{CustomResourceExt, FieldError, ServingCluster};

/// `openAPIV3Schema` of a `ServingCluster`.
pub(crate) static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = ServingCluster::crd();
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
    schema.and_then(|schema| serde_json::to_value(&schema.open_api_v3_schema).ok()).unwrap_or_default()
});

static RULES: LazyLock<CompiledSchema> = LazyLock::new(|| compile_schema(&SCHEMA));

/// Every rule of the resource that the cluster breaks, by field.
pub fn broken_rules(cluster: &ServingCluster) -> Vec<FieldError> {
    let object = match serde_json::to_value(cluster) {
        Ok(object) => object,
        Err(error) => return vec![FieldError::new("", error.to_string())],
    };
    let broken = validate_compiled(&RULES, &object, None).err();
    let broken = broken.map(ValidationErrors::into_vec).unwrap_or_default();
    let mut errors: Vec<FieldError> =
        broken.into_iter().map(|error| FieldError::new(&error.field_path, error.message)).collect();
    // One text for one spec: it is published.
    errors.sort_by(|a, b| (&a.field, &a.message).cmp(&(&b.field, &b.message)));
    errors
}
