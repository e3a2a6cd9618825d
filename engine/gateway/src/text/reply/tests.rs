//! Answers in pieces, as a model writes them, and what a client sees of them.

use proptest::prelude::*;

use super::*;
use crate::text::limits::TextLimits;
use crate::text::tools::syntax_of;

/// A reader whose tokens are the pieces of `pieces`, in order.
fn read(
    pieces: &[&str],
    template: Option<&str>,
    reasoning: Option<ReasoningStart>,
    stops: &[&str],
) -> (Vec<Delta>, Ending) {
    let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
    let plan = ReplyPlan {
        vocabulary: Arc::new(Vocabulary::new(pieces.iter().map(|piece| (piece.as_bytes(), false)))),
        stops: StopStrings::new(&stops, &TextLimits::default()).unwrap(),
        shown: Arc::new([]),
        reasoning,
        calls: template.map(|template| CallPlan {
            syntax: syntax_of(template),
            offered: Arc::new(["add".to_owned(), "noop".to_owned()]),
        }),
    };
    let mut reply = plan.start();
    let mut deltas = Vec::new();
    for id in 0..pieces.len() as u32 {
        if reply.push(id, &mut deltas) == Flow::Stop {
            break;
        }
    }
    let ending = reply.finish(&mut deltas);
    (deltas, ending)
}

/// All content, all reasoning, and each call's name and arguments.
fn joined(deltas: &[Delta]) -> (String, String, Vec<(String, String)>) {
    let (mut content, mut reasoning, mut calls) =
        (String::new(), String::new(), Vec::<(String, String)>::new());
    for delta in deltas {
        match delta {
            Delta::Content(text) => content.push_str(text),
            Delta::Reasoning(text) => reasoning.push_str(text),
            Delta::ToolCall { index, name, .. } => {
                assert_eq!(*index, calls.len(), "calls are counted from 0");
                calls.push((name.clone(), String::new()));
            }
            Delta::ToolArguments { index, fragment } => calls[*index].1.push_str(fragment),
        }
    }
    (content, reasoning, calls)
}

fn characters(text: &str) -> Vec<&str> {
    text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect()
}

const HERMES: &str = "<tool_call>";
const LLAMA3: &str = "<|python_tag|>";
const MISTRAL: &str = "[TOOL_CALLS]";

fn call(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

#[test]
fn a_hermes_call_streams_its_name_first_and_its_arguments_as_they_come() {
    let pieces = [
        "Sure.\n",
        "<tool",
        "_call>\n{\"na",
        "me\": \"add\", \"arg",
        "uments\": {\"a\"",
        ": 1}",
        "}\n</tool_call>",
    ];
    let (deltas, ending) = read(&pieces, Some(HERMES), None, &[]);
    let kinds: Vec<String> = deltas
        .iter()
        .map(|delta| match delta {
            Delta::Content(text) => format!("text {text}"),
            Delta::ToolCall { name, id, .. } => {
                assert!(id.starts_with("call_") && id.len() == 29, "{id}");
                format!("call {name}")
            }
            Delta::ToolArguments { fragment, .. } => format!("part {fragment}"),
            Delta::Reasoning(text) => format!("thought {text}"),
        })
        .collect();
    assert_eq!(kinds, ["text Sure.", "call add", "part {\"a\"", "part : 1}"]);
    assert_eq!(ending, Ending { stop: None, tool_calls: 1 });
}

#[test]
fn several_calls_in_every_format_are_counted_up() {
    let cases = [
        (
            HERMES,
            "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": [1, {\"b\": \"}\\\"\"}]}}\n</tool_call>\n<tool_call>\n{\"name\": \"noop\", \"arguments\": {}}\n</tool_call>\n",
        ),
        (
            LLAMA3,
            "{\"name\": \"add\", \"parameters\": {\"a\": [1, {\"b\": \"}\\\"\"}]}}; {\"name\": \"noop\", \"parameters\": {}}",
        ),
        (
            LLAMA3,
            "<|python_tag|>{\"name\": \"add\", \"parameters\": {\"a\": [1, {\"b\": \"}\\\"\"}]}}; {\"name\": \"noop\", \"parameters\": {}}",
        ),
        (
            MISTRAL,
            "[TOOL_CALLS][{\"name\": \"add\", \"arguments\": {\"a\": [1, {\"b\": \"}\\\"\"}]}}, {\"name\": \"noop\", \"arguments\": {}}]",
        ),
    ];
    for (template, text) in cases {
        let (deltas, ending) = read(&characters(text), Some(template), None, &[]);
        let expected = vec![call("add", "{\"a\": [1, {\"b\": \"}\\\"\"}]}"), call("noop", "{}")];
        assert_eq!(joined(&deltas), (String::new(), String::new(), expected), "{text}");
        assert_eq!(ending.tool_calls, 2, "{text}");
    }
}

#[test]
fn mistral_call_ids_have_the_nine_characters_its_template_demands() {
    let (deltas, _) =
        read(&["[TOOL_CALLS][{\"name\": \"noop\", \"arguments\": {}}]"], Some(MISTRAL), None, &[]);
    let Some(Delta::ToolCall { id, .. }) = deltas.first() else { panic!("{deltas:?}") };
    assert!(id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
}

#[test]
fn arguments_before_the_name_or_as_text_or_missing_are_understood() {
    let cases = [
        ("{\"arguments\": {\"a\": 1}, \"name\": \"add\"}", "{\"a\": 1}"),
        ("{\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 1}\"}", "{\"a\": 1}"),
        ("{\"name\": \"add\"}", "{}"),
        ("{ \"name\" : \"add\" , \"id\": 7, \"arguments\" : {\"name\": \"noop\"} }", "{\"name\": \"noop\"}"),
    ];
    for (body, arguments) in cases {
        let text = format!("<tool_call>{body}</tool_call>");
        let (deltas, _) = read(&characters(&text), Some(HERMES), None, &[]);
        assert_eq!(joined(&deltas).2, [call("add", arguments)], "{body}");
    }
}

#[test]
fn what_only_looks_like_a_call_is_content_to_the_letter() {
    let cases = [
        (HERMES, "a <tool_call> is XML"),
        (HERMES, "<tool_call>\n{\"name\": \"rm\", \"arguments\": {}}\n</tool_call>"),
        (HERMES, "<tool_call>\n{\"name\": 5}\n</tool_call> done"),
        (HERMES, "<tool_call>{\"name\""),
        (HERMES, "<tool_ca"),
        (HERMES, "<tool_call>"),
        (LLAMA3, "{\"name\": \"Bob\", \"age\": 3}"),
        (LLAMA3, "{\"age\": 3}"),
        (LLAMA3, " {] x"),
        (LLAMA3, "Use {\"name\": \"add\", \"parameters\": {}} to add"),
        (MISTRAL, "[TOOL_CALLS] none"),
        (MISTRAL, "[1, 2] \n\n"),
    ];
    for (template, text) in cases {
        for pieces in [characters(text), vec![text]] {
            let (deltas, ending) = read(&pieces, Some(template), None, &[]);
            assert_eq!((joined(&deltas).0.as_str(), ending.tool_calls), (text, 0), "{text}");
        }
    }
}

#[test]
fn a_call_behind_a_false_start_is_still_found() {
    for (template, text, content) in [
        (MISTRAL, "[[TOOL_CALLS][TOOL_CALLS][{\"name\": \"noop\", \"arguments\": {}}]", "[[TOOL_CALLS]"),
        (HERMES, "<tool_call>{\"x\": <tool_call>{\"name\": \"noop\"}</tool_call>", "<tool_call>{\"x\":"),
    ] {
        for pieces in [characters(text), vec![text]] {
            let (deltas, _) = read(&pieces, Some(template), None, &[]);
            assert_eq!(
                joined(&deltas),
                (content.to_owned(), String::new(), vec![call("noop", "{}")]),
                "{text}"
            );
        }
    }
}

#[test]
fn a_call_that_the_token_limit_cuts_keeps_the_arguments_so_far() {
    let (deltas, ending) =
        read(&["<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": "], Some(HERMES), None, &[]);
    assert_eq!(joined(&deltas).2, [call("add", "{\"a\": ")]);
    assert_eq!(ending.tool_calls, 1);
}

#[test]
fn without_tools_a_call_is_text() {
    let text = "<tool_call>{\"name\": \"add\", \"arguments\": {}}</tool_call>";
    assert_eq!(joined(&read(&[text], None, None, &[]).0).0, text);
}

#[test]
fn reasoning_is_taken_apart_from_the_answer() {
    let cases = [
        (ReasoningStart::Outside, "<think>\nhm\n</think>\n\nYes", "hm\n", "Yes"),
        (ReasoningStart::Outside, "  <think>hm</think>Yes <think>no</think>", "hm", "Yes <think>no</think>"),
        (ReasoningStart::Outside, "<thin air", "", "<thin air"),
        (ReasoningStart::Outside, "Yes", "", "Yes"),
        (ReasoningStart::Inside, "hm</thi</think>Yes", "hm</thi", "Yes"),
        (ReasoningStart::Inside, "hm, endless </thin", "hm, endless </thin", ""),
    ];
    for (start, text, reasoning, content) in cases {
        for pieces in [characters(text), vec![text]] {
            let (deltas, _) = read(&pieces, None, Some(start), &[]);
            let expected = (content.to_owned(), reasoning.to_owned(), vec![]);
            assert_eq!(joined(&deltas), expected, "{text}");
        }
    }
}

#[test]
fn a_call_after_reasoning_is_a_call() {
    let text = "<think>add it</think>\n\n<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>";
    let (deltas, _) = read(&characters(text), Some(HERMES), Some(ReasoningStart::Outside), &[]);
    assert_eq!(joined(&deltas), (String::new(), "add it".to_owned(), vec![call("add", "{}")]));
}

#[test]
fn a_stop_string_ends_the_answer_and_is_named() {
    let (deltas, ending) = read(&["one two", " thr", "ee four", "never"], None, None, &["three", "5"]);
    assert_eq!(joined(&deltas).0, "one two ");
    assert_eq!(ending.stop.as_deref(), Some("three"));
}

#[test]
fn a_stop_string_that_ends_with_a_broken_character_is_still_found() {
    let vocabulary = Vocabulary::new([(&b"a\xE2"[..], false), (&b"!"[..], false)]);
    let stops = StopStrings::new(&["\u{FFFD}!".to_owned()], &TextLimits::default()).unwrap();
    let plan = ReplyPlan {
        vocabulary: Arc::new(vocabulary),
        stops,
        shown: Arc::new([]),
        reasoning: None,
        calls: None,
    };
    let (mut reply, mut deltas) = (plan.start(), Vec::new());
    assert_eq!(reply.push(0, &mut deltas), Flow::More);
    assert_eq!(reply.push(1, &mut deltas), Flow::Stop);
    assert_eq!(reply.push(1, &mut deltas), Flow::Stop, "a stopped reply stays stopped");
    assert_eq!(
        (joined(&deltas).0.as_str(), reply.finish(&mut deltas).stop.as_deref()),
        ("a", Some("\u{FFFD}!"))
    );
}

/// Text made of the parts that matter to the parsers.
fn answers() -> impl Strategy<Value = String> {
    const PARTS: &[&str] = &[
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "[",
        "]",
        "; ",
        ",",
        "{\"name\": \"add\", \"arguments\": {\"a\": 1}}",
        "{\"name\": \"noop\", \"parameters\": {}}",
        "{\"x\": 1}",
        "{",
        "}",
        "\"",
        "\\",
        " ",
        "\n",
        "é",
        "text",
        "<",
    ];
    prop::collection::vec(prop::sample::select(PARTS), 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn where_tokens_end_changes_nothing_a_client_sees(
        text in answers(),
        cuts in prop::collection::vec(1_usize..6, 1..40),
        format in prop::sample::select(&[HERMES, LLAMA3, MISTRAL][..]),
        reasoning in prop::sample::select(&[None, Some(ReasoningStart::Inside), Some(ReasoningStart::Outside)][..]),
    ) {
        let letters = characters(&text);
        let mut pieces = Vec::new();
        let mut at = 0;
        for cut in cuts.iter().cycle() {
            if at >= letters.len() {
                break;
            }
            let end = (at + cut).min(letters.len());
            pieces.push(letters[at..end].concat());
            at = end;
        }
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let whole = if text.is_empty() { vec![] } else { vec![text.as_str()] };
        let (cut_up, in_one) = (read(&pieces, Some(format), reasoning, &[]), read(&whole, Some(format), reasoning, &[]));
        prop_assert_eq!(joined(&cut_up.0), joined(&in_one.0));
        prop_assert_eq!(cut_up.1, in_one.1);
    }
}
