//! JSON in and out of templates, written as Python's `json.dumps(ensure_ascii=False)` writes it, because
//! that is the text models were trained on.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use serde_json::Value as Json;

/// Nesting a template may build and print.
const MAX_DEPTH: usize = 128;

pub(super) fn to_template(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (None, Some(value)) => Value::from(value),
            (None, None) => Value::from(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(to_template).collect::<Vec<_>>()),
        Json::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, value)| (key.as_str(), to_template(value))))
        }
    }
}

/// The `tojson` filter, with `indent`; other options of Python's function are accepted where they name
/// what this always does.
// By value, because the filter interface hands it over so.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn tojson(state: &State, value: &Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    if ascii == Some(true) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: ensure_ascii=true is not supported"));
    }
    kwargs.assert_all_used()?;
    let mut out = String::new();
    write_value(&mut out, value, indent.map(|width| width.min(16)), 0)?;
    state.consume_fuel(out.len() as u64 / 64)?;
    Ok(out)
}

fn write_value(out: &mut String, value: &Value, indent: Option<usize>, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: the value is nested too deeply"));
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => write_number(out, value),
        ValueKind::Seq | ValueKind::Iterable => write_list(out, value, indent, depth)?,
        ValueKind::Map => write_map(out, value, indent, depth)?,
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default()),
        kind => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("tojson: a {kind} has no JSON form"),
            ));
        }
    }
    Ok(())
}

fn write_list(out: &mut String, list: &Value, indent: Option<usize>, depth: usize) -> Result<(), Error> {
    let mut empty = true;
    out.push('[');
    for item in list.try_iter()? {
        separate(out, indent, depth, empty);
        empty = false;
        write_value(out, &item, indent, depth + 1)?;
    }
    close(out, indent, depth, empty);
    out.push(']');
    Ok(())
}

fn write_map(out: &mut String, map: &Value, indent: Option<usize>, depth: usize) -> Result<(), Error> {
    let mut empty = true;
    out.push('{');
    for key in map.try_iter()? {
        separate(out, indent, depth, empty);
        empty = false;
        write_string(out, &key.to_string());
        out.push_str(": ");
        write_value(out, &map.get_item(&key)?, indent, depth + 1)?;
    }
    close(out, indent, depth, empty);
    out.push('}');
    Ok(())
}

fn separate(out: &mut String, indent: Option<usize>, depth: usize, first: bool) {
    match (indent, first) {
        (None, true) => {}
        (None, false) => out.push_str(", "),
        (Some(width), first) => {
            out.push_str(if first { "\n" } else { ",\n" });
            out.extend(std::iter::repeat_n(' ', width * (depth + 1)));
        }
    }
}

fn close(out: &mut String, indent: Option<usize>, depth: usize, empty: bool) {
    if let Some(width) = indent
        && !empty
    {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', width * depth));
    }
}

fn write_number(out: &mut String, value: &Value) {
    // The engine prints integers and floats as Python does (`1`, `1.0`).
    let _ = write!(out, "{value}");
}

fn write_string(out: &mut String, text: &str) {
    // serde_json escapes what JSON demands and leaves the rest as it is, like Python without ASCII.
    out.push_str(&serde_json::Value::from(text).to_string());
}
