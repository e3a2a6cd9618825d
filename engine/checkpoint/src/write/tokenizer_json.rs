//! `tokenizer.json` from a GGUF tokenizer of the byte-level kind.

use serde_json::{Map, Value, json};

use super::WriteError;
use crate::tokenizer::{GgufTokenizer, TokenType};

pub(crate) fn tokenizer_json(tokenizer: &GgufTokenizer) -> Result<Value, WriteError> {
    if tokenizer.model != "gpt2" {
        let what = format!("tokenizer model {}", tokenizer.model);
        return Err(WriteError::Inexpressible { what, possible: "gpt2" });
    }
    let typed = || tokenizer.tokens.iter().zip(&tokenizer.token_types).enumerate();
    let added: Vec<Value> = typed()
        .filter(|(_, (_, kind))| matches!(kind, TokenType::Control | TokenType::UserDefined))
        .map(|(id, (text, kind))| added_token(id, text, *kind))
        .collect();
    let vocabulary: Map<String, Value> = typed()
        .filter(|(_, (_, kind))| **kind != TokenType::Unused)
        .map(|(id, (text, _))| (text.clone(), json!(id)))
        .collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer(tokenizer.pre.as_deref())?,
        "post_processor": null,
        "decoder": byte_level(),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocabulary,
            "merges": tokenizer.merges,
        },
    }))
}

fn added_token(id: usize, text: &str, kind: TokenType) -> Value {
    json!({
        "id": id,
        "content": text,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": kind == TokenType::Control,
    })
}

fn byte_level() -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true })
}

fn pre_tokenizer(rule: Option<&str>) -> Result<Value, WriteError> {
    match rule {
        Some("gpt-2") => Ok(byte_level()),
        // SmolLM splits digits one by one.
        Some("smollm") => Ok(json!({
            "type": "Sequence",
            "pretokenizers": [{ "type": "Digits", "individual_digits": true }, byte_level()],
        })),
        other => {
            let what = format!("pre-tokenizing rule {}", other.unwrap_or("(none)"));
            Err(WriteError::Inexpressible { what, possible: "gpt-2 and smollm" })
        }
    }
}
