//! The grammar of an answer that must, or may, be calls of given functions.
//!
//! The frame of a call is spelled out in Lark; each function's arguments are a JSON schema of their own, so
//! references inside a schema keep their root.

use std::fmt::Write as _;

use serde_json::Value as Json;
use shoal_wire::rpc;

use super::{CallSyntax, Tool};
use crate::text::grammar::enforceable;
use crate::text::vocabulary::Vocabulary;

/// An answer of one call, or of several where `parallel`; or, with `otherwise`, an answer of that schema.
pub(in crate::text) fn call_grammar(
    syntax: &CallSyntax,
    tools: &[&Tool],
    parallel: bool,
    otherwise: Option<&Json>,
    vocabulary: &Vocabulary,
) -> rpc::Grammar {
    let mut lark = String::new();
    let alternative = if otherwise.is_some() { " | other" } else { "" };
    let _ = writeln!(lark, "start: calls{alternative}");
    let open = [terminal(syntax.open, vocabulary), literal(syntax.lead)].join(" ");
    let open = if syntax.bare { String::new() } else { open };
    let close = if syntax.list {
        literal(syntax.trail)
    } else {
        [literal(syntax.trail), terminal(syntax.close, vocabulary)].join(" ")
    };
    let several = match (parallel, syntax.separator) {
        (false, _) => format!("{open} call {close}"),
        (true, Some(separator)) => {
            format!("{open} call ({} call)* {close}", literal(&format!("{separator} ")))
        }
        (true, None) => format!("{open} call {close} ({} {open} call {close})*", literal("\n")),
    };
    let _ = writeln!(lark, "calls: {several}");
    let names: Vec<String> = (0..tools.len()).map(|index| format!("call_{index}")).collect();
    let _ = writeln!(lark, "call: {}", names.join(" | "));
    for (index, tool) in tools.iter().enumerate() {
        let head = format!("{{\"name\": \"{}\", \"{}\": ", tool.name, syntax.arguments_key);
        let _ = writeln!(lark, "call_{index}: {} arguments_{index} {}", literal(&head), literal("}"));
        let schema = enforceable(&object_schema(&tool.parameters), tool.strict);
        let _ = writeln!(lark, "arguments_{index}: %json {schema}");
    }
    if let Some(schema) = otherwise {
        let _ = writeln!(lark, "other: %json {schema}");
    }
    rpc::Grammar { kind: rpc::grammar::Kind::Lark.into(), source: lark }
}

/// Arguments are always an object, also where the schema forgot to say so.
fn object_schema(parameters: &Json) -> Json {
    let mut schema = parameters.clone();
    if let Some(object) = schema.as_object_mut() {
        object.entry("type").or_insert_with(|| "object".into());
    }
    schema
}

/// A mark: by id where it is a control token, else its text.
fn terminal(mark: &str, vocabulary: &Vocabulary) -> String {
    vocabulary.control(mark).map_or_else(|| literal(mark), |id| format!("<[{id}]>"))
}

/// A Lark string; empty text is left out. Lark reads the escapes of JSON.
fn literal(text: &str) -> String {
    if text.is_empty() { String::new() } else { Json::from(text).to_string() }
}
