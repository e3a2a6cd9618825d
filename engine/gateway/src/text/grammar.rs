//! What output must match: from a request's words to the wire's grammar, checked before any engine sees it.

mod check;
mod verdicts;

use serde_json::{Map, Value as Json, json};
use shoal_wire::rpc;

use super::error::TextError;
pub use check::GrammarChecker;

/// Whitespace a JSON answer may have between its parts: nothing, a space, or a line break with its indent.
/// JSON itself allows any amount, and a small model that may write spaces can write them until its budget ends.
const JSON_WHITESPACE: &str = r"( |\n {0,16})";

/// A constraint on a whole answer.
#[derive(Debug, Clone, PartialEq)]
pub enum GrammarSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON that follows a schema. Under `strict`, schema keywords that cannot be enforced are refused;
    /// without it they are ignored.
    JsonSchema { schema: Json, strict: bool },
    /// The answer matches this regular expression from its start to its end.
    Regex(String),
    /// A grammar in Lark notation; its rule `start` is the answer.
    Lark(String),
}

impl GrammarSpec {
    /// OpenAI's `response_format`; type `text` and null are no constraint.
    pub fn from_response_format(format: &Json) -> Result<Option<Self>, TextError> {
        if format.is_null() {
            return Ok(None);
        }
        let kind = format.get("type").and_then(Json::as_str);
        match kind {
            Some("text") => Ok(None),
            Some("json_object") => Ok(Some(Self::JsonObject)),
            Some("json_schema") => Self::from_named_schema(format.get("json_schema")).map(Some),
            _ => Err(TextError::invalid(
                "response_format.type",
                "response_format.type must be text, json_object or json_schema",
            )),
        }
    }

    fn from_named_schema(named: Option<&Json>) -> Result<Self, TextError> {
        const PARAM: &str = "response_format.json_schema";
        let named = named.and_then(Json::as_object).ok_or_else(|| {
            TextError::invalid(PARAM, "response_format.json_schema must be an object with name and schema")
        })?;
        if !named.get("name").and_then(Json::as_str).is_some_and(is_name) {
            let message =
                "response_format.json_schema.name must have 1 to 64 of the characters a-z A-Z 0-9 _ -";
            return Err(TextError::invalid(format!("{PARAM}.name"), message));
        }
        let strict = match named.get("strict") {
            None | Some(Json::Null) => false,
            Some(Json::Bool(strict)) => *strict,
            Some(_) => {
                return Err(TextError::invalid(format!("{PARAM}.strict"), "strict must be true or false"));
            }
        };
        match named.get("schema") {
            Some(schema @ Json::Object(_)) => Ok(Self::JsonSchema { schema: schema.clone(), strict }),
            _ => Err(TextError::invalid(format!("{PARAM}.schema"), "schema must be a JSON schema object")),
        }
    }

    /// The field of a request that states this constraint.
    fn param(&self) -> &'static str {
        match self {
            Self::JsonObject => "response_format",
            Self::JsonSchema { .. } => "response_format.json_schema.schema",
            Self::Regex(_) => "regex",
            Self::Lark(_) => "grammar",
        }
    }

    /// The schema to enforce, if this is JSON.
    pub(super) fn schema(&self) -> Option<Json> {
        match self {
            Self::JsonObject => Some(enforceable(&json!({"type": "object"}), true)),
            Self::JsonSchema { schema, strict } => Some(enforceable(schema, *strict)),
            Self::Regex(_) | Self::Lark(_) => None,
        }
    }

    pub(super) fn to_wire(&self) -> (rpc::Grammar, &'static str) {
        let (kind, source) = match self {
            Self::Regex(source) => (rpc::grammar::Kind::Regex, source.clone()),
            Self::Lark(source) => (rpc::grammar::Kind::Lark, source.clone()),
            Self::JsonObject | Self::JsonSchema { .. } => {
                (rpc::grammar::Kind::JsonSchema, self.schema().unwrap_or_default().to_string())
            }
        };
        (rpc::Grammar { kind: kind.into(), source }, self.param())
    }
}

/// A schema with the compiler's options in it; options a client set itself stay.
pub(super) fn enforceable(schema: &Json, strict: bool) -> Json {
    let mut schema = schema.clone();
    if let Some(object) = schema.as_object_mut()
        && !object.contains_key("x-guidance")
    {
        let mut options = Map::new();
        options.insert("whitespace_pattern".to_owned(), JSON_WHITESPACE.into());
        options.insert("lenient".to_owned(), (!strict).into());
        object.insert("x-guidance".to_owned(), options.into());
    }
    schema
}

/// Names of schemas and functions.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests;
