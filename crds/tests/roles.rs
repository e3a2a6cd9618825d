//! What a ServingRole may say, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use serde_json::{Value, json};
use shoal_crds::ServingRole;

fn role(role: &str, replicas: i32) -> ServingRole {
    serde_json::from_value(document(role, replicas)).unwrap()
}

fn document(role: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": "ServingRole", "metadata": { "name": "chat" },
        "spec": { "role": role, "replicas": replicas },
    })
}

fn refusals(role: &ServingRole) -> Vec<String> {
    let broken =
        role.validate_cel().err().map(kube::core::cel::ValidationErrors::into_vec).unwrap_or_default();
    broken.into_iter().map(|error| format!("{}: {}", error.field_path, error.message)).collect()
}

#[test]
fn a_count_has_the_bounds_of_its_role() {
    for (name, replicas) in [("prefill", 0), ("prefill", 4095), ("decode", 1), ("decode", 4096)] {
        assert!(refusals(&role(name, replicas)).is_empty(), "{name} {replicas}");
    }
    for (name, replicas, refusal) in [
        ("prefill", -1, "spec.replicas: must be 0 to 4096"),
        (
            "prefill",
            4096,
            "spec: replicas of the role prefill must be at most 4095: one instance must decode",
        ),
        (
            "decode",
            0,
            "spec: replicas of the role decode must be at least 1: without decode nothing is served",
        ),
        ("decode", 4097, "spec.replicas: must be 0 to 4096"),
    ] {
        assert_eq!(refusals(&role(name, replicas)), [refusal], "{name} {replicas}");
    }
}

#[test]
fn a_role_stays_what_it_is() {
    let schema = serde_json::to_value(<ServingRole as shoal_crds::CustomResourceExt>::crd()).unwrap();
    let role = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["role"];
    assert_eq!(role["enum"], json!(["prefill", "decode"]));
    assert_eq!(role["x-kubernetes-validations"][0]["rule"], "self == oldSelf");
    assert!(serde_json::from_value::<ServingRole>(document("router", 1)).is_err());
}
