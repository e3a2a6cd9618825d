//! Tools for a template that knows none: a system message in Hermes wording, and past calls and results
//! rewritten as the text such a model reads.

use serde_json::{Map, Value as Json};

use super::super::dumps::dumps;

/// The system text that describes the tools.
fn describe_tools(tools: &[Json]) -> String {
    let mut text = String::from(
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with \
         function signatures within <tools></tools> XML tags:\n<tools>",
    );
    for tool in tools {
        text.push('\n');
        text.push_str(&dumps(tool));
    }
    text.push_str(
        "\n</tools>\n\nFor each function call, return a json object with function name and arguments within \
         <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": \
         <args-json-object>}\n</tool_call>",
    );
    text
}

/// Puts the description into the system message and turns calls and results into plain content.
pub(in crate::text) fn rewrite_for_plain_template(messages: Vec<Json>, tools: &[Json]) -> Vec<Json> {
    let mut rewritten: Vec<Json> = messages.into_iter().map(rewrite).collect();
    if tools.is_empty() {
        return rewritten;
    }
    let description = describe_tools(tools);
    match rewritten.first_mut().filter(|first| role(first) == "system").and_then(Json::as_object_mut) {
        Some(system) => {
            let content = system.get("content").and_then(Json::as_str).unwrap_or_default();
            system.insert("content".to_owned(), format!("{content}\n\n{description}").into());
        }
        None => rewritten.insert(0, message("system", &description)),
    }
    rewritten
}

fn rewrite(original: Json) -> Json {
    let content = original.get("content").and_then(Json::as_str).unwrap_or_default();
    match role(&original) {
        "tool" => message("user", &format!("<tool_response>\n{content}\n</tool_response>")),
        "assistant" => match original.get("tool_calls").and_then(Json::as_array) {
            Some(calls) => message("assistant", &with_calls(content, calls)),
            None => original,
        },
        _ => original,
    }
}

fn with_calls(content: &str, calls: &[Json]) -> String {
    let mut text = content.to_owned();
    for call in calls {
        let function = call.get("function").unwrap_or(&Json::Null);
        let mut object = Map::new();
        for key in ["name", "arguments"] {
            object.insert(key.to_owned(), function.get(key).cloned().unwrap_or_default());
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str("<tool_call>\n");
        text.push_str(&dumps(&Json::Object(object)));
        text.push_str("\n</tool_call>");
    }
    text
}

fn role(message: &Json) -> &str {
    message.get("role").and_then(Json::as_str).unwrap_or_default()
}

fn message(role: &str, content: &str) -> Json {
    serde_json::json!({ "role": role, "content": content })
}
