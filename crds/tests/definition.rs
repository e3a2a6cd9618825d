//! The committed `CustomResourceDefinition` is current, documented and evaluable.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use kube::core::cel::compile_schema;
use serde_json::Value;
use shoal_crds::{CustomResourceExt, ServingCluster, servingclusters_yaml};

fn schema() -> Value {
    let crd = serde_json::to_value(ServingCluster::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, property);
        walk(&path, property, visit);
        walk(&format!("{path}[]"), &property["items"], visit);
    }
}

#[test]
fn the_committed_yaml_is_what_the_types_generate() {
    let committed = include_str!("../yaml/servingclusters.yaml");
    assert!(
        servingclusters_yaml().unwrap() == committed,
        "crds/yaml/servingclusters.yaml is stale; run: cargo run -p shoal-crds --example generate"
    );
}

#[test]
fn every_field_is_documented_and_ours_say_default_and_example() {
    let mut missing = Vec::new();
    walk("", &schema(), &mut |path, property| {
        let text = property["description"].as_str().unwrap_or_default();
        let ours = path.starts_with(".spec.") || (path.starts_with(".status.") && !path.contains("[]"));
        let says = |word| text.contains(word);
        let complete = !ours || (says("Example: ") && (says("Default: ") || says("Required.")));
        if text.is_empty() || !complete {
            missing.push(format!("{path}: {text:?}"));
        }
    });
    assert!(missing.is_empty(), "fields without sentence, default or example:\n{}", missing.join("\n"));
}

#[test]
fn documented_defaults_are_the_defaults_of_the_schema() {
    let mut checked = 0;
    walk("", &schema(), &mut |path, property| {
        let scalar = property["default"]
            .as_str()
            .map(ToOwned::to_owned)
            .or_else(|| property["default"].as_i64().map(|n| n.to_string()));
        if let (true, Some(default)) = (path.starts_with(".spec."), scalar) {
            let text = property["description"].as_str().unwrap();
            assert!(
                text.contains(&format!("Default: {default}")),
                "{path} defaults to {default} but says: {text}"
            );
            checked += 1;
        }
    });
    assert_eq!(checked, 7, "device, kvMemory, maxBatch, chunk, two replicas, port");
}

#[test]
fn every_rule_compiles_and_has_a_message_of_its_own() {
    let mut rules = 0;
    let mut visit = |path: &str, property: &Value| {
        for rule in property["x-kubernetes-validations"].as_array().into_iter().flatten() {
            assert!(rule["message"].as_str().is_some_and(|text| text.contains("must be")), "{path}: {rule}");
            rules += 1;
        }
        assert!(
            !compile_schema(property).has_errors(),
            "{path}: {:?}",
            compile_schema(property).compilation_errors()
        );
    };
    visit("", &schema());
    walk("", &schema(), &mut visit);
    assert_eq!(rules, 14, "each is also exercised in documents.rs");
}

#[test]
fn kubectl_get_has_the_columns_a_user_looks_for() {
    let crd = serde_json::to_value(ServingCluster::crd()).unwrap();
    let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap();
    let names: Vec<&str> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Ready", "Prefill", "Decode", "Model", "Status", "Age", "Endpoint"]);
    assert_eq!(crd["spec"]["names"]["shortNames"], serde_json::json!(["shc"]));
    assert_eq!(crd["spec"]["names"]["categories"], serde_json::json!(["shoal"]));
}
