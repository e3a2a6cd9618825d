//! Typed access to GGUF metadata. A key of another type than asked for is an error, not a default.

use std::collections::BTreeMap;

use super::value::Value;
use crate::error::{Fault, Part, Problem};

#[derive(Debug, Default)]
pub(crate) struct Metadata<'a> {
    values: BTreeMap<&'a str, Value<'a>>,
}

impl<'a> Metadata<'a> {
    pub(super) fn insert(&mut self, key: &'a str, value: Value<'a>) -> Result<(), Fault> {
        match self.values.insert(key, value) {
            None => Ok(()),
            Some(_) => Err(Part::key(key).has(Problem::Duplicate)),
        }
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<&'a str>, Fault> {
        self.convert(key, "string", |value| match value {
            Value::String(text) => Some(*text),
            _ => None,
        })
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, Fault> {
        self.convert(key, "bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub(crate) fn integer(&self, key: &str) -> Result<Option<u64>, Fault> {
        self.convert(key, "non-negative integer", unsigned)
    }

    pub(crate) fn size(&self, key: &str) -> Result<Option<usize>, Fault> {
        Ok(self.integer(key)?.map(|value| usize::try_from(value).unwrap_or(usize::MAX)))
    }

    pub(crate) fn token_id(&self, key: &str) -> Result<Option<u32>, Fault> {
        match self.integer(key)? {
            None => Ok(None),
            // Some converters write "no such token" as -1 in an unsigned field.
            Some(id) if id == u64::from(u32::MAX) => Ok(None),
            Some(id) => match u32::try_from(id) {
                Ok(id) => Ok(Some(id)),
                Err(_) => Err(Part::key(key).has(Problem::not_allowed(id, "a token id"))),
            },
        }
    }

    pub(crate) fn float(&self, key: &str) -> Result<Option<f32>, Fault> {
        self.convert(key, "float", float)
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Option<Vec<&'a str>>, Fault> {
        self.array(key, "array of strings", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    pub(crate) fn integers(&self, key: &str) -> Result<Option<Vec<u64>>, Fault> {
        self.array(key, "array of integers", |value| unsigned(&value))
    }

    pub(crate) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, Fault> {
        self.array(key, "array of floats", |value| float(&value))
    }

    fn convert<T>(
        &self,
        key: &str,
        wanted: &'static str,
        convert: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let mismatch = || Part::key(key).has(Problem::Type { found: value.type_name(), wanted });
        convert(value).map(Some).ok_or_else(mismatch)
    }

    /// The vector grows with the items found, each of which takes bytes of the file.
    fn array<T>(
        &self,
        key: &str,
        wanted: &'static str,
        convert: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Fault> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        if !matches!(value, Value::Array { .. }) {
            return Err(Part::key(key).has(Problem::Type { found: value.type_name(), wanted }));
        }
        let item = |item: Result<Value<'a>, Problem>| {
            let item = item.map_err(|problem| Part::key(key).has(problem))?;
            let found = item.type_name();
            convert(item).ok_or_else(|| Part::key(key).has(Problem::Type { found, wanted }))
        };
        value.items().map(item).collect::<Result<Vec<T>, Fault>>().map(Some)
    }
}

fn unsigned(value: &Value<'_>) -> Option<u64> {
    match value {
        Value::Unsigned(value) => Some(*value),
        Value::Signed(value) => u64::try_from(*value).ok(),
        _ => None,
    }
}

fn float(value: &Value<'_>) -> Option<f32> {
    match value {
        Value::Float(value) => Some(*value as f32),
        Value::Unsigned(value) => Some(*value as f32),
        Value::Signed(value) => Some(*value as f32),
        _ => None,
    }
}
