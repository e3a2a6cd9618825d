//! Whether an object already is what was rendered, so that at rest nothing is written.
//!
//! Only what was rendered is compared: defaults that the API server filled in and fields that somebody else
//! owns are not ours. A field that is no longer rendered shows in the stamp over the whole object.

use serde_json::{Map, Value};

/// What the API takes as one value: who adds to it changes what it says. A selector with one more label selects less, a
/// binding with one more subject lets somebody else in.
const WHOLE: [&str; 6] =
    ["selector", "podSelector", "namespaceSelector", "labelSelector", "nodeSelector", "subjects"];

/// Every value in `wanted` is in `found`.
pub fn covers(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => object(found, wanted),
        (Value::Array(found), Value::Array(wanted)) => list(found, wanted),
        (found, wanted) => found == wanted,
    }
}

fn object(found: &Map<String, Value>, wanted: &Map<String, Value>) -> bool {
    wanted.iter().all(|(key, wanted)| match found.get(key) {
        Some(found) if WHOLE.contains(&key.as_str()) => covers(found, wanted) && covers(wanted, found),
        Some(found) => covers(found, wanted),
        None => is_empty(wanted),
    })
}

/// The API server leaves empty values out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Lists of named things may hold more of them, which somebody else put there; any other list is ours whole.
fn list(found: &[Value], wanted: &[Value]) -> bool {
    if wanted.iter().all(|item| item["name"].is_string()) {
        let named = |name: &Value| found.iter().find(|item| item["name"] == *name);
        return wanted.iter().all(|item| named(&item["name"]).is_some_and(|found| covers(found, item)));
    }
    found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| covers(found, wanted))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::covers;

    #[test]
    fn what_others_add_is_no_difference_and_what_they_change_is() {
        let wanted = json!({"labels": {"a": "1"}, "ports": [{"name": "http", "port": 8000}], "args": ["x"], "none": {}});
        let found = json!({
            "labels": {"a": "1", "theirs": "2"},
            "ports": [{"name": "side", "port": 1}, {"name": "http", "port": 8000, "protocol": "TCP"}],
            "args": ["x"], "uid": "u",
        });
        assert!(covers(&found, &wanted));
        for (pointer, value) in [
            ("/labels/a", json!("2")),
            ("/ports/1/port", json!(8001)),
            ("/ports/1/name", json!("web")),
            ("/args", json!(["x", "y"])),
            ("/args", json!([])),
            ("/labels", json!(null)),
        ] {
            let mut changed = found.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert!(!covers(&changed, &wanted), "{pointer}");
        }
    }

    #[test]
    fn who_adds_to_a_selector_or_to_the_subjects_of_a_binding_changes_it() {
        let wanted = json!({"selector": {"app": "a"}, "subjects": [{"kind": "ServiceAccount", "name": "a"}]});
        assert!(covers(&wanted, &wanted));
        let narrower = json!({"selector": {"app": "a", "track": "b"}, "subjects": wanted["subjects"]});
        assert!(!covers(&narrower, &wanted));
        let wider = json!({"selector": {"app": "a"}, "subjects": [
            {"kind": "ServiceAccount", "name": "a"}, {"kind": "ServiceAccount", "name": "b"}]});
        assert!(!covers(&wider, &wanted));
    }
}
