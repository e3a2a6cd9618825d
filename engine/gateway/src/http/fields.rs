//! A JSON body read field by field, so that every refusal names the field and what is allowed.
//!
//! Work on a hostile body is bounded by its bytes: nesting is refused by the parser (128 levels), numbers
//! that no double holds are refused, and what JSON does not have (NaN, infinities) does not parse.

use serde_json::{Map, Value};

use super::error::ApiError;

/// Characters of an offending value shown in a message.
const SHOWN: usize = 60;

#[derive(Debug)]
pub struct Fields {
    map: Map<String, Value>,
    /// Put before field names in messages: nothing, or `stream_options.`.
    prefix: String,
}

impl Fields {
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self { map, prefix: String::new() }),
            Ok(other) => {
                Err(ApiError::malformed(format!("the body must be a JSON object; it is {}", show(&other))))
            }
            Err(error) => Err(ApiError::malformed(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// Removes a field; `null` counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub fn string(&mut self, name: &str, max_bytes: usize) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= max_bytes => Ok(Some(text)),
            Some(Value::String(text)) => {
                Err(self.refuse(name, format!("must have at most {max_bytes} bytes; it has {}", text.len())))
            }
            Some(other) => Err(self.wrong(name, "a string", &other)),
        }
    }

    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(name, "true or false", &other)),
        }
    }

    /// A number in `min..=max`.
    pub fn number(&mut self, name: &str, min: f64, max: f64) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number as f32)),
            _ => Err(self.wrong(name, &format!("a number from {min} to {max}"), &value)),
        }
    }

    /// A whole number in `min..=max`.
    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_i64() {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(name, &format!("a whole number from {min} to {max}"), &value)),
        }
    }

    pub fn array(&mut self, name: &str, max: usize) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= max => Ok(Some(items)),
            Some(Value::Array(items)) => {
                Err(self.refuse(name, format!("must have at most {max} entries; it has {}", items.len())))
            }
            Some(other) => Err(self.wrong(name, "an array", &other)),
        }
    }

    pub fn object(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { map, prefix: format!("{}{name}.", self.prefix) })),
            Some(other) => Err(self.wrong(name, "an object", &other)),
        }
    }

    pub fn into_map(self) -> Map<String, Value> {
        self.map
    }

    /// 400 for a field: "`name` COMPLAINT".
    pub fn refuse(&self, name: &str, complaint: impl std::fmt::Display) -> ApiError {
        let param = format!("{}{name}", self.prefix);
        let message = format!("`{param}` {complaint}");
        ApiError::invalid(param, message)
    }

    /// 400 for a field of the wrong type or range.
    pub fn wrong(&self, name: &str, wanted: &str, value: &Value) -> ApiError {
        self.refuse(name, format_args!("must be {wanted}; it is {}", show(value)))
    }
}

/// A value as far as a message can bear it.
fn show(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(map) => format!("an object of {}", map.len()),
        other => {
            let text = other.to_string();
            let mut shown: String = text.chars().take(SHOWN).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            shown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        Fields::parse(body.as_bytes()).expect("an object")
    }

    #[test]
    fn wrong_types_and_ranges_name_the_field_and_what_is_allowed() {
        let mut body =
            fields(r#"{"t":"hot","n":1.5,"big":99999999999999999999,"s":7,"b":1,"o":[],"x":{"y":3}}"#);
        let message = |error: ApiError| error.message;
        assert_eq!(
            body.number("t", 0.0, 2.0).map_err(message),
            Err("`t` must be a number from 0 to 2; it is \"hot\"".into())
        );
        assert_eq!(
            body.integer("n", 1, 16).map_err(message),
            Err("`n` must be a whole number from 1 to 16; it is 1.5".into())
        );
        assert!(body.integer("big", 0, i64::MAX).is_err());
        assert!(body.string("s", 10).is_err() && body.boolean("b").is_err() && body.array("none", 1).is_ok());
        assert_eq!(
            body.object("o").map_err(message).map(|_| ()),
            Err("`o` must be an object; it is an array of 0".into())
        );
        let mut inner = body.object("x").ok().flatten().expect("x");
        assert_eq!(inner.boolean("y").map_err(|e| e.param), Err(Some("x.y".into())));
    }

    #[test]
    fn null_is_absent() {
        assert_eq!(fields(r#"{"n":null}"#).integer("n", 1, 2), Ok(None));
    }

    #[test]
    fn what_is_not_a_json_object_is_refused_without_much_work() {
        let deep = "[".repeat(100_000);
        for body in ["", "7", "[]", "{", r#"{"t":NaN}"#, r#"{"t":1e999}"#, "{\"a\":\"\u{1}\"}", &deep] {
            assert_eq!(
                Fields::parse(body.as_bytes()).map(|_| ()).map_err(|e| e.code),
                Err(Some("invalid_json")),
                "{body:.20}"
            );
        }
        assert!(Fields::parse(b"{\"a\":\"\xff\"}").is_err(), "not UTF-8");
    }
}
