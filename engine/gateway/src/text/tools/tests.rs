//! Formats told apart by their templates, choices, and grammars that force a call.

use serde_json::json;

use super::*;
use crate::text::grammar::GrammarChecker;
use crate::text::limits::TextLimits;
use crate::text::vocabulary::Vocabulary;

fn tool(name: &str, parameters: &Json) -> Tool {
    let body = json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    Tool::from_json(&body, 0).unwrap()
}

/// The bytes as tokens 0 to 255; 256 ends, 257 is Mistral's mark.
fn vocabulary() -> Vocabulary {
    let bytes: Vec<[u8; 1]> = (0..=255u8).map(|byte| [byte]).collect();
    let tokens = bytes.iter().map(|byte| (&byte[..], false));
    Vocabulary::new(tokens.chain([(&b"</s>"[..], true), (&b"[TOOL_CALLS]"[..], true)]))
}

/// True if the grammar takes all of `answer` and may end there.
fn accepts(grammar: &shoal_wire::rpc::Grammar, answer: &str) -> bool {
    let checker = GrammarChecker::new(&vocabulary(), &[256], &TextLimits::default()).unwrap();
    let mut matcher = checker.matcher(grammar);
    let mark = "[TOOL_CALLS]";
    let mut ids = Vec::new();
    let mut rest = answer;
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix(mark) {
            ids.push(257);
            rest = tail;
        } else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            ids.extend(rest.as_bytes()[..length].iter().map(|b| u32::from(*b)));
            rest = &rest[length..];
        }
    }
    matcher.try_consume_tokens(&ids).unwrap() == ids.len() && matcher.is_accepting().unwrap()
}

#[test]
fn a_template_names_its_format_and_hermes_is_the_fallback() {
    let names = |template: &str| syntax_of(template).open;
    assert_eq!(names("...<tool_call>\n..."), "<tool_call>");
    assert_eq!(names("'[TOOL_CALLS][' ... <tool_call>"), "[TOOL_CALLS]");
    assert_eq!(names("{{ '<|python_tag|>' }}"), "<|python_tag|>");
    assert_eq!(names("{{ messages }}"), "<tool_call>");
}

#[test]
fn choices_are_read_as_openai_means_them() {
    assert_eq!(ToolChoice::from_json(&Json::Null), Ok(ToolChoice::Auto));
    assert_eq!(ToolChoice::from_json(&json!("required")), Ok(ToolChoice::Required));
    let named = json!({"type": "function", "function": {"name": "add"}});
    assert_eq!(ToolChoice::from_json(&named), Ok(ToolChoice::Named("add".to_owned())));
    for bad in [json!("any"), json!(1), json!({"type": "function"})] {
        assert_eq!(ToolChoice::from_json(&bad).unwrap_err().param.as_deref(), Some("tool_choice"), "{bad}");
    }
}

#[test]
fn a_wrong_tool_is_refused_by_its_place() {
    let cases = [
        (json!({"type": "web_search"}), "tools[3].type"),
        (json!({"type": "function", "function": {}}), "tools[3].function.name"),
        (json!({"type": "function", "function": {"name": "a\"b"}}), "tools[3].function.name"),
        (
            json!({"type": "function", "function": {"name": "a", "parameters": 5}}),
            "tools[3].function.parameters",
        ),
    ];
    for (body, param) in cases {
        assert_eq!(Tool::from_json(&body, 3).unwrap_err().param.as_deref(), Some(param), "{body}");
    }
}

#[test]
fn a_forced_call_is_one_of_the_functions_with_arguments_of_its_schema() {
    let add = tool(
        "add",
        &json!({
            "type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"],
            "additionalProperties": false, "$defs": {"n": {"type": "integer"}},
        }),
    );
    let noop = tool("noop", &json!({"properties": {}, "additionalProperties": false}));
    for (template, one, two) in [
        (
            "<tool_call>",
            "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 12}}\n</tool_call>",
            "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\":12}}\n</tool_call>\n<tool_call>\n{\"name\": \"noop\", \"arguments\": {}}\n</tool_call>",
        ),
        (
            "<|python_tag|>",
            "{\"name\": \"add\", \"parameters\": {\"a\": 12}}",
            "{\"name\": \"add\", \"parameters\": {\"a\": 12}}; {\"name\": \"noop\", \"parameters\": {}}",
        ),
        (
            "[TOOL_CALLS]",
            "[TOOL_CALLS][{\"name\": \"add\", \"arguments\": {\"a\": 12}}]",
            "[TOOL_CALLS][{\"name\": \"add\", \"arguments\": {\"a\": 12}}, {\"name\": \"noop\", \"arguments\": {}}]",
        ),
    ] {
        let grammar =
            |parallel| call_grammar(syntax_of(template), &[&add, &noop], parallel, None, &vocabulary());
        assert!(accepts(&grammar(false), one), "{template}");
        assert!(accepts(&grammar(true), one), "{template}");
        assert!(accepts(&grammar(true), two), "{template}");
        assert!(!accepts(&grammar(false), two), "{template}");
        for wrong in [
            one.replace("12", "\"x\""),
            one.replace("add", "rm"),
            one.replace("\"a\"", "\"b\""),
            "no".to_owned(),
        ] {
            assert!(!accepts(&grammar(true), &wrong), "{wrong}");
        }
    }
}

#[test]
fn a_choice_between_calls_and_a_schema_takes_either() {
    let noop = tool("noop", &json!({"additionalProperties": false}));
    let schema = json!({"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]});
    let grammar = call_grammar(&hermes::SYNTAX, &[&noop], true, Some(&schema), &vocabulary());
    assert!(accepts(&grammar, "{\"x\": true}"));
    assert!(accepts(&grammar, "<tool_call>\n{\"name\": \"noop\", \"arguments\": {}}\n</tool_call>"));
    assert!(!accepts(&grammar, "hello"));
}

#[test]
fn a_plain_template_reads_tools_calls_and_results_as_text() {
    let tools = [json!({"type": "function", "function": {"name": "add"}})];
    let messages = vec![
        json!({"role": "user", "content": "1+2?"}),
        json!({"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]}),
        json!({"role": "tool", "content": "3"}),
    ];
    let plain = rewrite_for_plain_template(messages.clone(), &tools);
    assert_eq!(plain[0]["role"], "system");
    assert!(
        plain[0]["content"]
            .as_str()
            .unwrap()
            .contains("\n{\"type\": \"function\", \"function\": {\"name\": \"add\"}}\n</tools>")
    );
    assert_eq!(
        plain[2]["content"],
        "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>"
    );
    assert_eq!(plain[3], json!({"role": "user", "content": "<tool_response>\n3\n</tool_response>"}));
    let own = vec![json!({"role": "system", "content": "Be kind."}), messages[0].clone()];
    let merged = rewrite_for_plain_template(own, &tools);
    assert!(merged.len() == 2 && merged[0]["content"].as_str().unwrap().starts_with("Be kind.\n\n# Tools"));
}

#[test]
fn call_ids_differ() {
    let ids: std::collections::BTreeSet<String> = (0..1000).map(|_| new_call_id(9)).collect();
    assert_eq!(ids.len(), 1000);
}
