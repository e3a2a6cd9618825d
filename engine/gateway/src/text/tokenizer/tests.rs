//! Tokenizers of each kind, small enough to see through.

use super::*;

fn gguf(model: &str, pre: Option<&str>, tokens: &[(&str, TokenType)], merges: &[&str]) -> GgufTokenizer {
    GgufTokenizer {
        model: model.to_owned(),
        pre: pre.map(str::to_owned),
        tokens: tokens.iter().map(|(text, _)| (*text).to_owned()).collect(),
        token_types: tokens.iter().map(|(_, kind)| *kind).collect(),
        merges: merges.iter().map(|m| (*m).to_owned()).collect(),
        scores: (0..tokens.len()).map(|rank| -(rank as f32)).collect(),
        bos: Some(0),
        eos: Some(0),
        unk: None,
        add_bos: true,
        add_space_prefix: model == "llama",
    }
}

fn open(gguf: GgufTokenizer) -> Result<Tokenizer, OpenError> {
    let tokens: Vec<_> = gguf
        .tokens
        .iter()
        .zip(&gguf.token_types)
        .map(|(text, kind)| (text.clone(), kind.is_special()))
        .collect();
    let vocabulary = Vocabulary::new(tokens.iter().map(|(text, special)| (text.as_bytes(), *special)));
    Tokenizer::new(&TokenizerSource::Gguf(gguf), &vocabulary)
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &mut ids).unwrap();
    ids
}

const N: TokenType = TokenType::Normal;
const BYTES: &[(&str, TokenType)] = &[
    ("<s>", TokenType::Control),
    ("a", N),
    ("b", N),
    ("1", N),
    ("2", N),
    ("Ġ", N),
    ("<", N),
    ("s", N),
    (">", N),
];

fn with(more: &[(&'static str, TokenType)]) -> Vec<(&'static str, TokenType)> {
    BYTES.iter().chain(more).copied().collect()
}

#[test]
fn each_rule_cuts_digits_its_own_way() {
    let tokens = with(&[("12", N), ("121", N), ("Ġ12", N)]);
    let merges = ["1 2", "12 1", "Ġ 12"];
    let ids = |pre: &str| encode(&open(gguf("gpt2", Some(pre), &tokens, &merges)).unwrap(), "a 1212");
    assert_eq!(ids("gpt-2"), [1, 11, 9], "a run of digits with its space is one word");
    assert_eq!(ids("smollm"), [1, 5, 3, 4, 3, 4], "digits stand alone");
    assert_eq!(ids("qwen2"), [1, 5, 3, 4, 3, 4]);
    assert_eq!(ids("llama-bpe"), [1, 5, 10, 4], "at most three digits together");
    assert_eq!(ids("tekken"), [1, 5, 3, 4, 3, 4]);
}

#[test]
fn an_unknown_rule_lists_the_known_ones() {
    for pre in [Some("poro-chat"), None] {
        let error = open(gguf("gpt2", pre, BYTES, &[])).unwrap_err().to_string();
        assert!(
            error.contains("smollm") && error.contains("qwen2") && error.contains("llama-bpe"),
            "{error}"
        );
    }
}

#[test]
fn merges_that_are_no_pairs_of_tokens_are_refused_by_rank() {
    for bad in ["ab", "a", "", " ", "a z", "b a", "a b c"] {
        let tokens = with(&[("ab", N)]);
        let error = open(gguf("gpt2", Some("gpt-2"), &tokens, &["a b", bad])).unwrap_err().to_string();
        assert!(error.contains("tokenizer.ggml.merges[1]"), "{bad:?}: {error}");
    }
}

#[test]
fn control_tokens_come_from_text_only_where_they_are_asked_for() {
    let tokenizer = open(gguf("gpt2", Some("llama-bpe"), BYTES, &[])).unwrap();
    assert_eq!(encode(&tokenizer, "a<s>b"), [1, 6, 7, 8, 2]);
    let mut ids = tokenizer.prefix().to_vec();
    tokenizer.encode_with_controls("a<s>b", &mut ids).unwrap();
    assert_eq!(ids, [0, 1, 0, 2]);
}

#[test]
fn added_tokens_are_whole_in_any_text() {
    let tokens = with(&[("<a1>", TokenType::UserDefined)]);
    assert_eq!(encode(&open(gguf("gpt2", Some("smollm"), &tokens, &[])).unwrap(), "b<a1>b"), [2, 9, 2]);
}

#[test]
fn sentencepiece_merges_the_best_scored_first_and_falls_back_to_bytes() {
    let byte = TokenType::Byte;
    let tokens = [
        ("<s>", TokenType::Control),
        ("▁ab", N),
        ("bc", N),
        ("▁a", N),
        ("▁", N),
        ("a", N),
        ("b", N),
        ("c", N),
        ("<0xC3>", byte),
        ("<0xA9>", byte),
    ];
    let tokenizer = open(gguf("llama", None, &tokens, &[])).unwrap();
    assert!(tokenizer.space_prefix());
    // Scores fall with the id. `▁ab` scores best, but is only reached through `▁a`, which loses to `bc`.
    assert_eq!(encode(&tokenizer, "abc"), [3, 2]);
    assert_eq!(encode(&tokenizer, "ab"), [1]);
    assert_eq!(encode(&tokenizer, "a é"), [3, 4, 8, 9]);
}

#[test]
fn a_tokenizer_json_gives_its_beginning_and_keeps_control_tokens_out_of_text() {
    let json = r#"{"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a": 1, "b": 2, "ab": 3, "<": 4, "s": 5, ">": 6}, "merges": ["a b"]}}"#;
    let names: [(&[u8], bool); 7] = [
        (b"<s>", true),
        (b"a", false),
        (b"b", false),
        (b"ab", false),
        (b"<", false),
        (b"s", false),
        (b">", false),
    ];
    let tokenizer = Tokenizer::new(&TokenizerSource::Json(json.to_owned()), &Vocabulary::new(names)).unwrap();
    assert_eq!(tokenizer.prefix(), [0]);
    assert_eq!(encode(&tokenizer, "ab<s>"), [3, 4, 5, 6]);
    let mut ids = Vec::new();
    tokenizer.encode_with_controls("ab<s>", &mut ids).unwrap();
    assert_eq!(ids, [3, 0]);
    assert!(Tokenizer::new(&TokenizerSource::Json("{".to_owned()), &Vocabulary::new(names)).is_err());
}
