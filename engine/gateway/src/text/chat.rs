//! A chat request's conversation, checked and brought into the one form that templates get.

use serde_json::{Map, Value as Json};

use super::error::TextError;
use super::grammar::GrammarSpec;
use super::limits::TextLimits;
use super::template::replace_mark_characters;
use super::tools::ToolChoice;

/// A chat, in the shapes of OpenAI's API. Unset fields are the API's defaults.
// Independent switches of the API, not states.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone)]
pub struct ChatInput {
    /// `{role, content, tool_calls, tool_call_id, name}`.
    pub messages: Vec<Json>,
    /// `{type: function, function: {name, description, parameters, strict}}`.
    pub tools: Vec<Json>,
    pub tool_choice: ToolChoice,
    pub parallel_tool_calls: bool,
    pub response_format: Option<GrammarSpec>,
    pub stop: Vec<String>,
    /// Open the assistant's turn.
    pub add_generation_prompt: bool,
    /// Go on inside the last message instead.
    pub continue_final_message: bool,
    /// Variables for the template; only those it reads.
    pub template_kwargs: Map<String, Json>,
    /// Give `<think>` text its own deltas, where the model writes it.
    pub separate_reasoning: bool,
}

impl Default for ChatInput {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            response_format: None,
            stop: Vec::new(),
            add_generation_prompt: true,
            continue_final_message: false,
            template_kwargs: Map::new(),
            separate_reasoning: true,
        }
    }
}

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// What one request may still spend.
struct Budget {
    bytes: usize,
    values: usize,
    depth: usize,
}

/// The checked parts of a chat.
#[derive(Debug)]
pub(super) struct Checked {
    pub messages: Vec<Json>,
    pub tools: Vec<Json>,
}

/// Checks shapes and limits. Contents become strings, a call's arguments objects, and no string holds a
/// character that templates use for marks.
pub(super) fn check(input: &ChatInput, limits: &TextLimits) -> Result<Checked, TextError> {
    count("messages", input.messages.len(), 1, limits.messages)?;
    count("tools", input.tools.len(), 0, limits.tools)?;
    count("chat_template_kwargs", input.template_kwargs.len(), 0, limits.template_kwargs)?;
    if input.add_generation_prompt && input.continue_final_message {
        let message = "continue_final_message needs add_generation_prompt to be false";
        return Err(TextError::invalid("continue_final_message", message));
    }
    let mut budget =
        Budget { bytes: limits.input_bytes, values: limits.json_values, depth: limits.json_depth };
    let mut messages = Vec::with_capacity(input.messages.len());
    for (index, message) in input.messages.iter().enumerate() {
        let param = format!("messages[{index}]");
        let clean = budget.clean(message, &param, 0)?;
        messages.push(self::message(clean, &param)?);
    }
    let tools = input.tools.iter().enumerate();
    let tools = tools
        .map(|(index, tool)| budget.clean(tool, &format!("tools[{index}]"), 0))
        .collect::<Result<_, _>>()?;
    Ok(Checked { messages, tools })
}

/// Template variables: scalars only, small, and only those in `allowed`.
pub(super) fn check_kwargs<'a>(
    kwargs: &Map<String, Json>,
    allowed: &(impl Iterator<Item = &'a str> + Clone),
) -> Result<Map<String, Json>, TextError> {
    const MAX_BYTES: usize = 1024;
    let one = |(name, value): (&String, &Json)| {
        let param = format!("chat_template_kwargs.{name}");
        if !allowed.clone().any(|known| known == name) {
            let known: Vec<&str> = allowed.clone().collect();
            let message = format!("this model's chat template reads no variable {name}; it reads {known:?}");
            return Err(TextError::invalid(param, message));
        }
        match value {
            Json::Bool(_) | Json::Number(_) | Json::Null => Ok((name.clone(), value.clone())),
            Json::String(text) if text.len() <= MAX_BYTES => {
                Ok((name.clone(), replace_mark_characters(text).into_owned().into()))
            }
            _ => {
                let message =
                    format!("{param} must be true, false, a number or a string of up to {MAX_BYTES} bytes");
                Err(TextError::invalid(param, message))
            }
        }
    };
    kwargs.iter().map(one).collect()
}

fn count(param: &str, found: usize, least: usize, most: usize) -> Result<(), TextError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(TextError::invalid(param, format!("{param} has {found} entries; {least} to {most} are allowed")))
}

impl Budget {
    /// A copy of `value` that is within the limits and free of mark characters.
    fn clean(&mut self, value: &Json, param: &str, depth: usize) -> Result<Json, TextError> {
        if depth > self.depth {
            return Err(TextError::invalid(param, format!("{param} is nested over {} deep", self.depth)));
        }
        self.values = self.values.checked_sub(1).ok_or_else(|| {
            TextError::invalid(param, "messages and tools have too many values; the limit is reached here")
        })?;
        Ok(match value {
            Json::String(text) => self.text(text, param)?.into(),
            Json::Array(items) => {
                items.iter().map(|item| self.clean(item, param, depth + 1)).collect::<Result<_, _>>()?
            }
            Json::Object(map) => {
                let pair = |(key, value): (&String, &Json)| {
                    let key = self.text(key, param)?;
                    let value = match depth {
                        0 => self.clean(value, &format!("{param}.{key}"), 1)?,
                        _ => self.clean(value, param, depth + 1)?,
                    };
                    Ok((key, value))
                };
                Json::Object(map.iter().map(pair).collect::<Result<_, TextError>>()?)
            }
            scalar => scalar.clone(),
        })
    }

    fn text(&mut self, text: &str, param: &str) -> Result<String, TextError> {
        self.bytes = self.bytes.checked_sub(text.len()).ok_or_else(|| {
            TextError::invalid(param, "the conversation is longer than allowed; the limit is reached here")
        })?;
        Ok(replace_mark_characters(text).into_owned())
    }
}

fn message(mut message: Json, param: &str) -> Result<Json, TextError> {
    let Some(object) = message.as_object_mut() else {
        return Err(TextError::invalid(param, format!("{param} must be an object")));
    };
    let role = object.get("role").and_then(Json::as_str).unwrap_or_default();
    if !ROLES.contains(&role) {
        let message = format!("{param}.role must be one of {}", ROLES.join(", "));
        return Err(TextError::invalid(format!("{param}.role"), message));
    }
    let (assistant, developer) = (role == "assistant", role == "developer");
    if developer {
        object.insert("role".to_owned(), "system".into());
    }
    let content = content(object.get("content"), assistant, param)?;
    object.insert("content".to_owned(), content.into());
    match object.get_mut("tool_calls") {
        None => {}
        Some(Json::Null) => drop(object.shift_remove("tool_calls")),
        Some(Json::Array(calls)) if assistant => {
            for (index, call) in calls.iter_mut().enumerate() {
                parse_arguments(call, &format!("{param}.tool_calls[{index}]"))?;
            }
            if calls.is_empty() {
                object.shift_remove("tool_calls");
            }
        }
        Some(_) => {
            let message = format!("{param}.tool_calls must be a list, in a message of the assistant");
            return Err(TextError::invalid(format!("{param}.tool_calls"), message));
        }
    }
    Ok(message)
}

/// Text parts are joined by line breaks; only the assistant may have no content.
fn content(content: Option<&Json>, optional: bool, param: &str) -> Result<String, TextError> {
    let param = format!("{param}.content");
    let wrong = || {
        let message =
            format!("{param} must be a string or a list of {{\"type\": \"text\", \"text\": ...}} parts");
        TextError::invalid(param.clone(), message)
    };
    match content {
        None | Some(Json::Null) if optional => Ok(String::new()),
        Some(Json::String(text)) => Ok(text.clone()),
        Some(Json::Array(parts)) => {
            let texts: Option<Vec<&str>> = parts
                .iter()
                .map(|part| match part.get("type").and_then(Json::as_str) {
                    Some("text" | "input_text" | "output_text") => part.get("text").and_then(Json::as_str),
                    _ => None,
                })
                .collect();
            texts.map(|texts| texts.join("\n")).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

/// OpenAI carries arguments as JSON text, templates print them from an object.
fn parse_arguments(call: &mut Json, param: &str) -> Result<(), TextError> {
    let function = call.get_mut("function").and_then(Json::as_object_mut);
    let Some(function) = function.filter(|f| f.get("name").is_some_and(Json::is_string)) else {
        let message = format!("{param}.function must be an object with name and arguments");
        return Err(TextError::invalid(format!("{param}.function"), message));
    };
    let arguments = match function.get("arguments") {
        None | Some(Json::Null) => Some(Json::Object(Map::new())),
        Some(Json::String(text)) if text.trim().is_empty() => Some(Json::Object(Map::new())),
        Some(Json::String(text)) => serde_json::from_str(text).ok().filter(Json::is_object),
        Some(object @ Json::Object(_)) => Some(object.clone()),
        Some(_) => None,
    };
    let arguments = arguments.ok_or_else(|| {
        let param = format!("{param}.function.arguments");
        let message = format!("{param} must be the JSON text of an object");
        TextError::invalid(param, message)
    })?;
    function.insert("arguments".to_owned(), arguments);
    Ok(())
}

#[cfg(test)]
mod tests;
