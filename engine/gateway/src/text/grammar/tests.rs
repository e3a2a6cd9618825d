//! Constraints that compile, and those that must not get further than here.

use std::time::{Duration, Instant};

use super::*;
use crate::text::error::ErrorClass;
use crate::text::limits::TextLimits;
use crate::text::vocabulary::Vocabulary;

fn checker_with(limits: &TextLimits) -> GrammarChecker {
    let bytes: Vec<[u8; 1]> = (0..=255u8).map(|byte| [byte]).collect();
    let tokens = bytes.iter().map(|byte| (&byte[..], false)).chain([(&b"<|im_end|>"[..], true)]);
    GrammarChecker::new(&Vocabulary::new(tokens), &[256], limits).unwrap()
}

fn checker() -> GrammarChecker {
    checker_with(&TextLimits::default())
}

fn check(spec: &GrammarSpec) -> Result<(), TextError> {
    let (grammar, param) = spec.to_wire();
    checker().check(&grammar, param)
}

/// One of `count` objects, each with a property of its own.
fn wide(count: usize) -> GrammarSpec {
    let object = |n| json!({"type": "object", "properties": {format!("p{n}"): {"type": "string"}}});
    schema(json!({"anyOf": (0..count).map(object).collect::<Vec<_>>()}), false)
}

fn schema(schema: Json, strict: bool) -> GrammarSpec {
    GrammarSpec::JsonSchema { schema, strict }
}

#[test]
fn everyday_constraints_compile() {
    let person = json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0},
                       "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
                       "home": {"$ref": "#/$defs/place"}},
        "required": ["name", "age", "tags", "home"], "additionalProperties": false,
        "$defs": {"place": {"type": "object", "properties": {"near": {"$ref": "#/$defs/place"}}}},
    });
    for spec in [
        GrammarSpec::JsonObject,
        schema(person, true),
        GrammarSpec::Regex(r"[A-Z][a-z]+ \d{2,4}(/x)?".to_owned()),
        GrammarSpec::Lark("start: \"a\" num\nnum: /[0-9]+/".to_owned()),
    ] {
        check(&spec).unwrap_or_else(|e| panic!("{spec:?}: {e}"));
    }
}

#[test]
fn what_does_not_compile_is_refused_with_its_reason_and_field() {
    let cases = [
        (schema(json!({"type": "strin"}), true), "response_format.json_schema.schema"),
        (schema(json!({"$ref": "https://example.com/x.json"}), true), "response_format.json_schema.schema"),
        (schema(json!({"$ref": "#/$defs/missing"}), true), "response_format.json_schema.schema"),
        (
            schema(json!({"type": "object", "x-guidance": {"nonsense": 1}}), false),
            "response_format.json_schema.schema",
        ),
        (GrammarSpec::Regex("(".to_owned()), "regex"),
        (GrammarSpec::Regex(r"(a)\1".to_owned()), "regex"),
        (GrammarSpec::Lark("root ::= \"a\"".to_owned()), "grammar"),
        (GrammarSpec::Lark(String::new()), "grammar"),
        (GrammarSpec::Lark("start: missing".to_owned()), "grammar"),
        (GrammarSpec::Lark("start: <[99999]>".to_owned()), "grammar"),
    ];
    for (spec, param) in cases {
        let error = check(&spec).unwrap_err();
        assert_eq!(
            (error.param.as_deref(), error.class()),
            (Some(param), ErrorClass::Invalid),
            "{spec:?}: {error}"
        );
        assert!(error.message.starts_with(param) && error.message.len() < 600, "{error}");
        assert!(!error.message.contains("backtrace"), "{error}");
    }
}

#[test]
fn keywords_that_cannot_be_enforced_are_refused_only_under_strict() {
    let unique = json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": true});
    assert!(check(&schema(unique.clone(), false)).is_ok());
    assert!(check(&schema(unique, true)).unwrap_err().message.contains("uniqueItems"));
}

#[test]
fn deep_wide_and_explosive_grammars_end_fast_in_a_refusal_or_a_small_result() {
    let deep = (0..90).fold(json!({"type": "string"}), |inner, _| json!({"type": "array", "items": inner}));
    let rules = |count: usize| {
        (0..count).fold("start: r0\n".to_owned(), |all, n| all + &format!("r{n}: r{}\n", n + 1))
    };
    let terminals = |count: usize| {
        (0..count).fold("start: T0\n".to_owned(), |all, n| all + &format!("T{n}: T{} \"a\"\n", n + 1))
    };
    let references: Map<String, Json> =
        (0..2000).map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n + 1)}))).collect();
    let cases = [
        schema(deep, false),
        schema(json!({"$ref": "#/$defs/d0", "$defs": references}), false),
        wide(3000),
        schema(json!({"type": "string", "minLength": 1_000_000, "maxLength": 2_000_000_000}), false),
        schema(json!({"type": "array", "items": {"type": "string"}, "minItems": 1_000_000}), false),
        schema(json!({"type": "string", "pattern": "^(a|b|ab)*(x{1000}){1000}$"}), false),
        GrammarSpec::Regex("(".repeat(50_000)),
        GrammarSpec::Regex("((((a{1000}){1000}){1000}){1000})".to_owned()),
        GrammarSpec::Regex("(a*)*b(a|a)*(a|aa)+$".repeat(500)),
        GrammarSpec::Regex(r"(.*a){20}.*b.*c.*d(\w|\d|\s){200}".to_owned()),
        GrammarSpec::Regex("[".repeat(200_000)),
        GrammarSpec::Regex("x".repeat(1 << 20)),
        GrammarSpec::Lark(rules(900)),
        GrammarSpec::Lark(terminals(900)),
        GrammarSpec::Lark(rules(30_000)),
        GrammarSpec::Lark("start: (\"a\" | start start | start start start)*".to_owned()),
        GrammarSpec::Lark("start: /a{0,100000}/ /b{0,100000}/".to_owned()),
    ];
    for spec in cases {
        let begun = Instant::now();
        let verdict = check(&spec);
        let shown: String = format!("{spec:?}").chars().take(80).collect();
        assert!(begun.elapsed() < Duration::from_secs(6), "{shown} took {:?}", begun.elapsed());
        if let Err(error) = verdict {
            assert!(error.message.len() < 600, "{shown}: {error}");
        }
    }
}

#[test]
fn the_longest_chains_that_fit_the_limits_do_not_exhaust_the_stack() {
    let brackets = |count: usize| ["(".repeat(count), ")".repeat(count)];
    let [open, close] = brackets(95);
    let rules =
        (0..900).fold("start: r0\n".to_owned(), |all, n| all + &format!("r{n}: {open}r{}{close}\n", n + 1));
    let reference = |n: usize| {
        let next = json!({"$ref": format!("#/$defs/d{}", n + 1), "description": "x"});
        (format!("d{n}"), json!({"anyOf": [{"anyOf": [next, {"type": "null"}]}, {"type": "string"}]}))
    };
    let references: Map<String, Json> =
        (0..2300).map(reference).chain([("d2300".to_owned(), json!({}))]).collect();
    let chain = schema(json!({"$ref": "#/$defs/d0", "$defs": references}), false);
    for spec in [GrammarSpec::Lark(rules + "r900: \"a\"\n"), chain] {
        let (grammar, _) = spec.to_wire();
        assert!(
            grammar.source.len() <= TextLimits::default().grammar_bytes,
            "{} bytes",
            grammar.source.len()
        );
        // Either verdict will do; the process must live to give it.
        let _ = check(&spec);
    }
}

#[test]
fn a_grammar_over_its_time_is_refused() {
    let limits = TextLimits { grammar_time: Duration::ZERO, ..TextLimits::default() };
    let (grammar, param) = wide(3000).to_wire();
    let error = checker_with(&limits).check(&grammar, param).unwrap_err();
    assert!(error.message.contains("takes over"), "{error}");
}

#[test]
fn a_verdict_is_remembered() {
    let limits = TextLimits { grammar_threads: 1, ..TextLimits::default() };
    let mut checker = checker_with(&limits);
    let (good, bad) = (GrammarSpec::JsonObject.to_wire().0, GrammarSpec::Regex("(".to_owned()).to_wire().0);
    let first = (checker.check(&good, "x"), checker.check(&bad, "x"));
    checker.forbid_compiling();
    assert_eq!((checker.check(&good, "x"), checker.check(&bad, "x")), first);
    assert!(first.0.is_ok() && first.1.is_err());
}

#[test]
fn grammars_beyond_the_threads_are_told_to_come_back() {
    let limits = TextLimits { grammar_threads: 0, ..TextLimits::default() };
    let (grammar, param) = GrammarSpec::JsonObject.to_wire();
    let error = checker_with(&limits).check(&grammar, param).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
}

#[test]
fn response_formats_are_read_as_openai_means_them() {
    let read = |format: Json| GrammarSpec::from_response_format(&format);
    assert_eq!(read(Json::Null), Ok(None));
    assert_eq!(read(json!({"type": "text"})), Ok(None));
    assert_eq!(read(json!({"type": "json_object"})), Ok(Some(GrammarSpec::JsonObject)));
    let named = json!({"type": "json_schema", "json_schema": {"name": "a-1_B", "strict": true, "schema": {"type": "null"}}});
    assert_eq!(read(named), Ok(Some(schema(json!({"type": "null"}), true))));
    let bad = [
        (json!("json"), "response_format.type"),
        (json!({"type": "xml"}), "response_format.type"),
        (json!({"type": "json_schema"}), "response_format.json_schema"),
        (json!({"type": "json_schema", "json_schema": {"schema": {}}}), "response_format.json_schema.name"),
        (
            json!({"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}),
            "response_format.json_schema.name",
        ),
        (json!({"type": "json_schema", "json_schema": {"name": "a"}}), "response_format.json_schema.schema"),
        (
            json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": 1}}),
            "response_format.json_schema.strict",
        ),
    ];
    for (format, param) in bad {
        assert_eq!(read(format.clone()).unwrap_err().param.as_deref(), Some(param), "{format}");
    }
}
