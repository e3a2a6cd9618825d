//! Hostile and odd conversations.

use serde_json::json;

use super::*;

fn chat(messages: &Json) -> ChatInput {
    ChatInput { messages: messages.as_array().cloned().unwrap_or_default(), ..ChatInput::default() }
}

fn refusal(input: &ChatInput) -> TextError {
    check(input, &TextLimits::default()).unwrap_err()
}

#[test]
fn text_parts_become_one_string_and_arguments_an_object() {
    let input = chat(&json!([
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
        ]},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
    ]));
    let messages = check(&input, &TextLimits::default()).unwrap().messages;
    assert_eq!(messages[0]["role"], "system");
    assert_eq!(messages[1]["content"], "a\nb");
    assert_eq!(messages[2]["content"], "");
    assert_eq!(messages[2]["tool_calls"][0]["function"]["arguments"], json!({"x": 1}));
}

#[test]
fn a_wrong_message_is_refused_by_its_place() {
    let cases = [
        (json!([]), "messages"),
        (json!(["hi"]), "messages[0]"),
        (json!([{"role": "root", "content": "x"}]), "messages[0].role"),
        (json!([{"role": "user"}]), "messages[0].content"),
        (json!([{"role": "user", "content": 5}]), "messages[0].content"),
        (
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]),
            "messages[0].content",
        ),
        (json!([{"role": "user", "content": "x", "tool_calls": [{}]}]), "messages[0].tool_calls"),
        (json!([{"role": "assistant", "tool_calls": [{}]}]), "messages[0].tool_calls[0].function"),
        (
            json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ];
    for (messages, param) in cases {
        assert_eq!(refusal(&chat(&messages)).param.as_deref(), Some(param), "{messages}");
    }
}

#[test]
fn size_number_and_depth_are_bounded_before_any_template_runs() {
    let huge = json!([{"role": "user", "content": "x".repeat(5 << 20)}]);
    assert!(refusal(&chat(&huge)).message.contains("longer than allowed"));
    let many = Json::Array(vec![json!({"role": "user", "content": "x"}); 5000]);
    assert!(refusal(&chat(&many)).message.contains("5000 entries"));
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let error = refusal(&chat(&json!([{"role": "user", "content": "x", "extra": deep}])));
    assert!(error.message.contains("nested over"), "{error}");
    let wide = json!([{"role": "user", "content": "x", "extra": vec![0; 300_000]}]);
    assert!(refusal(&chat(&wide)).message.contains("too many values"));
}

#[test]
fn template_variables_must_be_read_by_the_template_and_be_small() {
    let allowed = ["enable_thinking"].into_iter();
    let map = |json: Json| json.as_object().cloned().unwrap_or_default();
    assert!(check_kwargs(&map(json!({"enable_thinking": false})), &allowed).is_ok());
    for bad in [
        json!({"messages": 1}),
        json!({"enable_thinking": {"a": 1}}),
        json!({"enable_thinking": "x".repeat(5000)}),
    ] {
        let error = check_kwargs(&map(bad.clone()), &allowed).unwrap_err();
        assert!(error.param.is_some_and(|param| param.starts_with("chat_template_kwargs.")), "{bad}");
    }
}
