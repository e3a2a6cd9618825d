//! Tokenizer and vocabulary from GGUF metadata.

use super::Metadata;
use crate::ModelConfig;
use crate::error::{Fault, Part, Problem};
use crate::tokenizer::{GgufTokenizer, TokenType};
use crate::vocabulary::{Spelling, Vocabulary, VocabularyBuilder};

pub(crate) fn tokenizer(metadata: &Metadata<'_>) -> Result<GgufTokenizer, Fault> {
    let model = model(metadata)?;
    let tokens = required_strings(metadata, "tokenizer.ggml.tokens")?;
    let merges = match model {
        "gpt2" => required_strings(metadata, "tokenizer.ggml.merges")?,
        _ => Vec::new(),
    };
    let scores = match model {
        "llama" => scores(metadata, tokens.len())?,
        _ => Vec::new(),
    };
    Ok(GgufTokenizer {
        pre: metadata.string("tokenizer.ggml.pre")?.map(str::to_owned),
        token_types: token_types(metadata, tokens.len())?,
        bos: metadata.token_id("tokenizer.ggml.bos_token_id")?,
        eos: metadata.token_id("tokenizer.ggml.eos_token_id")?,
        unk: metadata.token_id("tokenizer.ggml.unknown_token_id")?,
        // Sentencepiece models begin with bos unless the file denies it.
        add_bos: metadata.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(model == "llama"),
        add_space_prefix: metadata.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(model == "llama"),
        model: model.to_owned(),
        tokens,
        merges,
        scores,
    })
}

pub(crate) fn vocabulary(tokenizer: &GgufTokenizer, config: &ModelConfig) -> Vocabulary {
    let spelling = if tokenizer.model == "gpt2" { Spelling::ByteLevel } else { Spelling::SentencePiece };
    let mut builder = VocabularyBuilder::default();
    for (text, kind) in tokenizer.tokens.iter().zip(&tokenizer.token_types) {
        match kind {
            TokenType::Normal | TokenType::Byte => builder.push(&spelling.decode(text), false),
            // These are spelled out literally.
            TokenType::UserDefined | TokenType::Control | TokenType::Unknown | TokenType::Unused => {
                builder.push(text.as_bytes(), kind.is_special());
            }
        }
    }
    builder.finish(config.vocabulary, config.bos, config.eos.clone())
}

fn model<'a>(metadata: &Metadata<'a>) -> Result<&'a str, Fault> {
    const KEY: &str = "tokenizer.ggml.model";
    match metadata.string(KEY)? {
        None => Err(Part::key(KEY).has(Problem::Missing)),
        Some(model @ ("gpt2" | "llama")) => Ok(model),
        Some(other) => Err(Part::key(KEY).has(Problem::not_allowed(other, "gpt2 and llama"))),
    }
}

fn required_strings(metadata: &Metadata<'_>, key: &str) -> Result<Vec<String>, Fault> {
    let strings = metadata.strings(key)?.ok_or_else(|| Part::key(key).has(Problem::Missing))?;
    Ok(strings.into_iter().map(str::to_owned).collect())
}

fn scores(metadata: &Metadata<'_>, tokens: usize) -> Result<Vec<f32>, Fault> {
    const KEY: &str = "tokenizer.ggml.scores";
    let scores = metadata.floats(KEY)?.ok_or_else(|| Part::key(KEY).has(Problem::Missing))?;
    expect_one_per_token(KEY, scores.len(), tokens)?;
    Ok(scores)
}

fn token_types(metadata: &Metadata<'_>, tokens: usize) -> Result<Vec<TokenType>, Fault> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let Some(ids) = metadata.integers(KEY)? else { return Ok(vec![TokenType::Normal; tokens]) };
    expect_one_per_token(KEY, ids.len(), tokens)?;
    ids.into_iter().map(|id| token_type(id).map_err(|problem| Part::key(KEY).has(problem))).collect()
}

fn token_type(id: u64) -> Result<TokenType, Problem> {
    match id {
        1 => Ok(TokenType::Normal),
        2 => Ok(TokenType::Unknown),
        3 => Ok(TokenType::Control),
        4 => Ok(TokenType::UserDefined),
        5 => Ok(TokenType::Unused),
        6 => Ok(TokenType::Byte),
        other => Err(Problem::not_allowed(other, "1 to 6")),
    }
}

fn expect_one_per_token(key: &str, found: usize, tokens: usize) -> Result<(), Fault> {
    if found == tokens {
        return Ok(());
    }
    let found = format!("{found} items long");
    Err(Part::key(key).has(Problem::not_allowed(found, format_args!("one per token, {tokens}"))))
}
