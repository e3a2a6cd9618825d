//! Tools of a chat: what is offered, how the model is told, and how its calls are written.
//!
//! Each call format is one file that describes it (`CallSyntax`); the parser (`reply/calls.rs`) and the
//! grammar builder work from the description. A template that does not write tools itself gets a system
//! message that describes them, and calls in Hermes format.

mod grammar;
mod hermes;
mod llama3;
mod mistral;
mod preamble;

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value as Json, json};

use super::error::TextError;
use super::grammar::is_name;
pub(super) use grammar::call_grammar;
pub(super) use preamble::rewrite_for_plain_template;

/// How a model writes its calls.
#[derive(Debug)]
pub(super) struct CallSyntax {
    /// A chat template that contains one of these writes tools in this format.
    pub template_marks: &'static [&'static str],
    /// Before the first call. May be the name of a control token.
    pub open: &'static str,
    /// Between `open` and the call, as the model was trained to write it.
    pub lead: &'static str,
    /// The other side of `lead`.
    pub trail: &'static str,
    /// After the last call of `open`; empty if nothing is.
    pub close: &'static str,
    /// Between calls of one `open`; `None` if each call has its own.
    pub separator: Option<&'static str>,
    /// Calls stand in a JSON list behind `open`.
    pub list: bool,
    /// An answer that is a call object from its first character is a call without `open`.
    pub bare: bool,
    /// How the format calls a call's arguments.
    pub arguments_key: &'static str,
    /// Characters of a call's id.
    pub id_length: usize,
}

/// Most specific first; the first whose marks occur in the template is the model's.
const FORMATS: &[&CallSyntax] = &[&mistral::SYNTAX, &hermes::SYNTAX, &llama3::SYNTAX];

/// The format a template writes, or Hermes if it names none.
pub(super) fn syntax_of(template: &str) -> &'static CallSyntax {
    let named = |syntax: &&&CallSyntax| syntax.template_marks.iter().any(|mark| template.contains(mark));
    FORMATS.iter().find(named).copied().unwrap_or(&hermes::SYNTAX)
}

/// OpenAI's `tool_choice`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No calls; the tools are not shown to the model.
    None,
    /// At least one call.
    Required,
    /// A call of this function.
    Named(String),
}

impl ToolChoice {
    /// Null is `auto`, as with OpenAI.
    pub fn from_json(choice: &Json) -> Result<Self, TextError> {
        let named = || choice.get("function").and_then(|f| f.get("name")).and_then(Json::as_str);
        match choice {
            Json::Null => Ok(Self::Auto),
            Json::String(word) if word == "auto" => Ok(Self::Auto),
            Json::String(word) if word == "none" => Ok(Self::None),
            Json::String(word) if word == "required" => Ok(Self::Required),
            Json::Object(_) if named().is_some() => Ok(Self::Named(named().unwrap_or_default().to_owned())),
            _ => Err(TextError::invalid(
                "tool_choice",
                "tool_choice must be auto, none, required, or {\"type\": \"function\", \"function\": {\"name\": ...}}",
            )),
        }
    }
}

/// A function the client offers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tool {
    pub name: String,
    /// JSON schema of the arguments.
    pub parameters: Json,
    pub strict: bool,
}

impl Tool {
    /// Reads `tools[index]`: `{"type": "function", "function": {name, description, parameters, strict}}`.
    pub(super) fn from_json(tool: &Json, index: usize) -> Result<Self, TextError> {
        let param = format!("tools[{index}]");
        if tool.get("type").and_then(Json::as_str) != Some("function") {
            let message = format!("{param}.type must be function");
            return Err(TextError::invalid(format!("{param}.type"), message));
        }
        let function = tool.get("function").unwrap_or(&Json::Null);
        let name =
            function.get("name").and_then(Json::as_str).filter(|name| is_name(name)).ok_or_else(|| {
                let message =
                    format!("{param}.function.name must have 1 to 64 of the characters a-z A-Z 0-9 _ -");
                TextError::invalid(format!("{param}.function.name"), message)
            })?;
        let parameters = match function.get("parameters") {
            None | Some(Json::Null) => json!({"type": "object", "properties": {}}),
            Some(schema @ Json::Object(_)) => schema.clone(),
            Some(_) => {
                let message = format!("{param}.function.parameters must be a JSON schema object");
                return Err(TextError::invalid(format!("{param}.function.parameters"), message));
            }
        };
        let strict = function.get("strict").and_then(Json::as_bool).unwrap_or(false);
        Ok(Self { name: name.to_owned(), parameters, strict })
    }
}

/// An id for a call: unguessable enough not to collide within a conversation.
pub(super) fn new_call_id(length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static SEED: std::sync::LazyLock<std::hash::RandomState> = std::sync::LazyLock::new(Default::default);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let character = |position: usize| {
        let mut hasher = SEED.build_hasher();
        hasher.write_u64(count);
        hasher.write_usize(position);
        char::from(ALPHABET[(hasher.finish() % 62) as usize])
    };
    let random: String = (0..length.min(24)).map(character).collect();
    if length > 9 { format!("call_{random}") } else { random }
}

#[cfg(test)]
mod tests;
