//! The committed `CustomResourceDefinition` is current, documented and evaluable.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use kube::core::cel::compile_schema;
use serde_json::Value;
use shoal_crds::{CustomResourceExt, MAX_REPLICAS, ServingCluster, ServingRole, definitions};

fn definition(kind: &str) -> Value {
    let crd = match kind {
        "ServingCluster" => ServingCluster::crd(),
        _ => ServingRole::crd(),
    };
    serde_json::to_value(crd).unwrap()
}

fn schema(kind: &str) -> Value {
    definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

const KINDS: [&str; 2] = ["ServingCluster", "ServingRole"];

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
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/yaml");
    for (file, generated) in definitions().unwrap() {
        assert!(
            std::fs::read_to_string(format!("{folder}/{file}")).unwrap() == generated,
            "crds/yaml/{file} is stale; run: cargo run -p shoal-crds --example generate"
        );
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), definitions().unwrap().len());
}

/// Below a list of Kubernetes' own type in a pod template: its own words are shown.
fn is_of_kubernetes(path: &str) -> bool {
    let Some((_, within)) = path.split_once(".podTemplate.spec.") else { return false };
    let ours = |rest: &str| !rest.contains("[]") && !rest.contains('.');
    let containers = ["containers[].", "initContainers[].", "volumes[]."];
    match containers.iter().find_map(|list| within.strip_prefix(list)) {
        Some(rest) => !ours(rest.strip_prefix("resources.").unwrap_or(rest)),
        None => !ours(within),
    }
}

#[test]
fn every_field_is_documented_and_ours_say_default_and_example() {
    let mut missing = Vec::new();
    for kind in KINDS {
        walk(kind, &schema(kind), &mut |path, property| {
            let text = property["description"].as_str().unwrap_or_default();
            let ours = (path.contains(".spec.") && !is_of_kubernetes(path))
                || (path.contains(".status.") && !path.contains("[]"));
            let says = |word| text.contains(word);
            let complete = !ours || (says("Example: ") && (says("Default: ") || says("Required.")));
            if text.is_empty() || !complete {
                missing.push(format!("{path}: {text:?}"));
            }
        });
    }
    assert!(missing.is_empty(), "fields without sentence, default or example:\n{}", missing.join("\n"));
}

#[test]
fn only_names_are_required_in_what_a_user_adds_to_pods() {
    walk("", &schema("ServingCluster"), &mut |path, property| {
        if path.contains(".podTemplate") && !is_of_kubernetes(path) && property["type"] == "object" {
            assert_eq!(property["required"], Value::Null, "{path}");
        }
    });
}

#[test]
fn documented_defaults_are_the_defaults_of_the_schema() {
    let mut checked = 0;
    walk("", &schema("ServingCluster"), &mut |path, property| {
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
    assert_eq!(checked, 8, "device, kvMemory, maxBatch, chunk, three replicas, port");
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
    for kind in KINDS {
        visit(kind, &schema(kind));
        walk(kind, &schema(kind), &mut visit);
    }
    assert_eq!(rules, 34 + 4, "each is also exercised in documents.rs or roles.rs");
}

#[test]
fn kubectl_get_has_the_columns_a_user_looks_for() {
    for (kind, short, columns) in [
        (
            "ServingCluster",
            "shc",
            &["Ready", "Prefill", "Decode", "Model", "Status", "Age", "Endpoint"] as &[&str],
        ),
        ("ServingRole", "shr", &["Cluster", "Role", "Desired", "Ready", "Status", "Age"]),
    ] {
        let crd = definition(kind);
        let found = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap();
        let names: Vec<&str> = found.iter().map(|column| column["name"].as_str().unwrap()).collect();
        assert_eq!(names, columns);
        assert_eq!(crd["spec"]["names"]["shortNames"], serde_json::json!([short]));
        assert_eq!(crd["spec"]["names"]["categories"], serde_json::json!(["shoal"]));
    }
}

#[test]
fn a_role_is_scaled_by_the_standard_subresource() {
    let subresources = &definition("ServingRole")["spec"]["versions"][0]["subresources"];
    assert_eq!(
        subresources["scale"],
        serde_json::json!({
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        })
    );
    assert!(subresources["status"].is_object());
}

/// CEL cannot read a constant of ours, so its limits are written out in rules and texts.
#[test]
fn every_limit_of_a_count_is_that_of_the_constant() {
    let written = definitions().unwrap().map(|(_, text)| text).concat();
    let most = [MAX_REPLICAS, MAX_REPLICAS - 1].map(|limit| limit.to_string());
    let limits = written.split("must be at most ").skip(1).chain(written.split("must be 0 to ").skip(1));
    let limits: Vec<String> =
        limits.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect()).collect();
    let counts: Vec<&String> = limits.iter().filter(|limit| limit.len() > 2).collect();
    assert_eq!(counts.len(), 4, "{limits:?}");
    assert!(counts.iter().all(|limit| most.contains(limit)), "{counts:?}");
}
