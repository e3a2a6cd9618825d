//! Typed access to a JSON object. `null` counts as absent; a value of another type is an error that names
//! the field.

use serde_json::{Map, Value};

use crate::error::{Fault, Part, Problem};

#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Name of the object itself, empty at the top.
    within: &'a str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(object: &'a Map<String, Value>) -> Self {
        Self { object, within: "" }
    }

    pub(super) fn part(&self, key: &str) -> Part {
        if self.within.is_empty() { Part::key(key) } else { Part::key(format!("{}.{key}", self.within)) }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn object(&self, key: &'a str) -> Result<Option<Self>, Fault> {
        let object = self.convert(key, "object", Value::as_object)?;
        Ok(object.map(|object| Self { object, within: key }))
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>, Fault> {
        self.convert(key, "string", Value::as_str)
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, Fault> {
        self.convert(key, "boolean", Value::as_bool)
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>, Fault> {
        let convert = |value: &Value| {
            // Some tools write a whole number as a float.
            let whole = value.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=9e15).contains(float));
            value
                .as_u64()
                .or_else(|| whole.map(|float| float as u64))
                .and_then(|value| usize::try_from(value).ok())
        };
        self.convert(key, "non-negative integer", convert)
    }

    pub(super) fn size(&self, key: &str) -> Result<usize, Fault> {
        self.optional_size(key)?.ok_or_else(|| self.part(key).has(Problem::Missing))
    }

    pub(super) fn optional_float(&self, key: &str) -> Result<Option<f32>, Fault> {
        self.convert(key, "number", |value| value.as_f64().map(|value| value as f32))
    }

    pub(super) fn float(&self, key: &str) -> Result<f32, Fault> {
        self.optional_float(key)?.ok_or_else(|| self.part(key).has(Problem::Missing))
    }

    /// A feature that this decoder does not have may be named only to say that it is off.
    pub(super) fn refuse(&self, key: &str) -> Result<(), Fault> {
        match self.boolean(key)? {
            Some(true) => Err(self.part(key).has(Problem::not_allowed(true, "false"))),
            _ => Ok(()),
        }
    }

    fn convert<T>(
        &self,
        key: &str,
        wanted: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let mismatch = || self.part(key).has(Problem::Type { found: type_name(value), wanted });
        convert(value).map(Some).ok_or_else(mismatch)
    }
}

pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
