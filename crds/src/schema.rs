//! Walks a document beside the resource's own structural schema, as an API server does with strict field
//! validation: unknown fields, missing fields, wrong types, values outside an enum.

use serde_json::{Map, Value};

use crate::document::FieldError;

/// Every way in which `value` departs from `schema`, with paths below `path`.
pub(crate) fn check(path: &str, schema: &Value, value: &Value, errors: &mut Vec<FieldError>) {
    let wanted = schema["type"].as_str().unwrap_or("object");
    if schema["x-kubernetes-int-or-string"] == true && (value.is_string() || value.is_number()) {
        return;
    }
    if !has_type(wanted, value) {
        errors.push(FieldError::new(path, format!("must be {}, not {}", article(wanted), kind_of(value))));
        return;
    }
    match value {
        Value::Object(object) => check_object(path, schema, object, errors),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(&format!("{path}[{index}]"), &schema["items"], item, errors);
            }
        }
        Value::String(text) => check_enum(path, schema, text, errors),
        _ => {}
    }
}

fn check_object(path: &str, schema: &Value, object: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, value) in object {
        match properties.get(name) {
            Some(_) if value.is_null() => errors.push(FieldError::new(
                &join(path, name),
                "has no value; give it one or remove the line to take the default".to_owned(),
            )),
            Some(property) => check(&join(path, name), property, value, errors),
            None if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
            None => errors.push(unknown(path, name, properties)),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            errors.push(FieldError::new(&join(path, name), "is required".to_owned()));
        }
    }
}

pub(crate) fn unknown(path: &str, name: &str, properties: &Map<String, Value>) -> FieldError {
    let mut allowed: Vec<&str> = properties.keys().map(String::as_str).collect();
    allowed.sort_unstable();
    let near = allowed.iter().find(|known| known.eq_ignore_ascii_case(name));
    let hint = near.map_or_else(String::new, |known| format!("; did you mean {known}?"));
    FieldError::new(
        &join(path, name),
        format!("is not a known field; allowed here: {}{hint}", allowed.join(", ")),
    )
}

fn check_enum(path: &str, schema: &Value, text: &str, errors: &mut Vec<FieldError>) {
    let Some(values) = schema["enum"].as_array() else { return };
    let allowed: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
    if !allowed.contains(&text) {
        let message = format!("must be one of: {}; not {text:?}", allowed.join(", "));
        errors.push(FieldError::new(path, message));
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn has_type(wanted: &str, value: &Value) -> bool {
    match wanted {
        "integer" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        other => kind_of(value) == other,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn article(kind: &str) -> String {
    match kind {
        "integer" => "a whole number of at most 32 bits".to_owned(),
        "object" => "a mapping of fields".to_owned(),
        "array" => "a list".to_owned(),
        other => format!("a {other}"),
    }
}
