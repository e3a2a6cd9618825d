//! Objects without what differs between any two lives: times, addresses, random names and values.

use std::{collections::BTreeMap, net::IpAddr};

use kube::api::DynamicObject;
use serde_json::{Map, Value, json};

/// Instances are who they are by their role and settings; which number they have depends on what was free.
const INSTANCE_LABEL: &str = "shoal.dev/instance";
/// Written by controllers whenever they like, and following from the rest.
const DERIVED: [&str; 4] = ["Endpoints", "EndpointSlice", "PodMetrics", "ControllerRevision"];

/// Kind and name.
pub(super) fn name(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map(|types| types.kind.as_str()).unwrap_or_default();
    format!("{kind} {}", object.metadata.name.as_deref().unwrap_or_default())
}

/// All objects by kind and name.
pub(super) fn form(objects: &[DynamicObject], namespace: &str) -> Value {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for object in objects {
        let kind = object.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default();
        if DERIVED.contains(&kind.as_str()) {
            continue;
        }
        let mut value = serde_json::to_value(object).unwrap_or_default();
        let random = random_names(&value);
        strip(&mut value, &kind);
        mask(&mut value, "", namespace, &random);
        let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        all.entry(format!("{kind} {name}")).or_default().push(value);
    }
    for same in all.values_mut() {
        same.sort_by_key(ToString::to_string);
    }
    json!(all)
}

/// Parts of an object's name that are not the same in any two lives, and what stands for each.
fn random_names(object: &Value) -> Vec<(String, String)> {
    let labels = &object["metadata"]["labels"];
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let mut random = Vec::new();
    if let Some(instance) = labels[INSTANCE_LABEL].as_str() {
        let role = labels["shoal.dev/role"].as_str().unwrap_or_default();
        let settings =
            object["metadata"]["annotations"]["shoal.dev/template-hash"].as_str().unwrap_or_default();
        random.push((instance.to_owned(), format!("<{role} of {settings}>")));
    }
    if let Some(generated) = object["metadata"]["generateName"].as_str() {
        random.push((name.to_owned(), format!("{generated}*")));
    }
    if let Some(hash) = labels["pod-template-hash"].as_str() {
        random.push((hash.to_owned(), "*".to_owned()));
    }
    random
}

fn strip(object: &mut Value, kind: &str) {
    if let Some(meta) = object["metadata"].as_object_mut() {
        for field in ["managedFields", "resourceVersion", "generation", "selfLink", "generateName"] {
            meta.remove(field);
        }
    }
    if kind == "Secret"
        && let Some(data) = object["data"].as_object_mut()
    {
        data.values_mut().for_each(|value| *value = json!("SECRET"));
    }
    // The generation that a child's controller has seen counts writes, which are judged apart.
    if kind != "ServingCluster"
        && let Some(status) = object["status"].as_object_mut()
    {
        status.remove("observedGeneration");
        // They name the ReplicaSet.
        for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
            condition["message"].take();
        }
    }
}

/// Puts a word in the place of every value that is a time, a UID, an address, a node or a random name.
fn mask(value: &mut Value, key: &str, namespace: &str, random: &[(String, String)]) {
    match value {
        Value::Object(fields) => {
            let taken: Map<String, Value> = std::mem::take(fields);
            for (key, mut value) in taken {
                mask(&mut value, &key, namespace, random);
                fields.insert(key, value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, key, namespace, random)),
        Value::String(text) => *text = masked(text, key, namespace, random),
        _ => {}
    }
}

fn masked(text: &str, key: &str, namespace: &str, random: &[(String, String)]) -> String {
    match key {
        "nodeName" => return "NODE".to_owned(),
        // Of everything that the object was rendered from, among it the namespace and the UID of its owner.
        "shoal.dev/rendered-hash" => return "HASH".to_owned(),
        _ if text.starts_with("kube-api-access-") => return "kube-api-access".to_owned(),
        _ => {}
    }
    if text.parse::<jiff::Timestamp>().is_ok() {
        return "TIME".to_owned();
    }
    if text.parse::<IpAddr>().is_ok() {
        return "ADDRESS".to_owned();
    }
    if is_uid(text) {
        return "UID".to_owned();
    }
    let text = random.iter().fold(text.to_owned(), |text, (name, word)| text.replace(name, word));
    text.replace(namespace, "NAMESPACE")
}

fn is_uid(text: &str) -> bool {
    text.len() == 36
        && text.chars().enumerate().all(|(at, character)| match at {
            8 | 13 | 18 | 23 => character == '-',
            _ => character.is_ascii_hexdigit(),
        })
}

/// Paths at which two values differ, with both values.
pub(super) fn differences(left: &Value, right: &Value, path: &str, found: &mut Vec<(String, String)>) {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            for key in left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))) {
                let (left, right) = (left.get(key), right.get(key));
                let none = Value::Null;
                let path = format!("{path}/{key}");
                differences(left.unwrap_or(&none), right.unwrap_or(&none), &path, found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (at, (left, right)) in left.iter().zip(right).enumerate() {
                differences(left, right, &format!("{path}/{at}"), found);
            }
        }
        _ if left == right => {}
        _ => found.push((path.to_owned(), format!("{} became {}", short(left), short(right)))),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 200 {
        text
    } else {
        format!("{}…", text.chars().take(200).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_between_any_two_lives_is_masked_and_nothing_else() {
        let mut pod = json!({
            "metadata": {"name": "chat-3-1", "uid": "0d3c3a1e-8a3b-4a43-9e63-2a4b5c6d7e8f", "labels": {
                "shoal.dev/instance": "chat-3", "shoal.dev/role": "decode"}, "annotations": {"shoal.dev/template-hash": "ab"}},
            "spec": {"nodeName": "fake7", "containers": [{"args": ["--instance", "chat-3-1", "--chunk", "512"]}]},
            "status": {"podIP": "10.245.0.7", "startTime": "2026-11-24T11:00:00Z", "text": "in life-7"},
        });
        let random = random_names(&pod);
        mask(&mut pod, "", "life-7", &random);
        let expected = json!({
            "metadata": {"name": "<decode of ab>-1", "uid": "UID", "labels": {
                "shoal.dev/instance": "<decode of ab>", "shoal.dev/role": "decode"}, "annotations": {"shoal.dev/template-hash": "ab"}},
            "spec": {"nodeName": "NODE", "containers": [{"args": ["--instance", "<decode of ab>-1", "--chunk", "512"]}]},
            "status": {"podIP": "ADDRESS", "startTime": "TIME", "text": "in NAMESPACE"},
        });
        assert_eq!(pod, expected);
    }

    #[test]
    fn differences_are_told_by_path_also_where_something_is_missing() {
        let mut found = Vec::new();
        differences(&json!({"a": 1, "b": [1, 2], "c": 1}), &json!({"a": 1, "b": [1, 3]}), "", &mut found);
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["/b/1", "/c"]);
    }
}
