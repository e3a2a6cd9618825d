//! Text to token ids.
//!
//! Control tokens are kept out of the tokenizer proper: it cannot make one from any text. They enter a
//! prompt only through a template's codes, or where a caller asks for their names to be read
//! (`encode_with_controls`, for raw prompts).

mod byte_level;
mod sentencepiece;

use std::sync::Arc;

use shoal_checkpoint::{GgufTokenizer, TokenType, TokenizerSource};
use tokenizers::AddedToken;

use super::error::{OpenError, TextError};
use super::template::{Marks, Segment};
use super::vocabulary::Vocabulary;

pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    marks: Arc<Marks>,
    /// Ids that begin every raw prompt (`bos`).
    prefix: Vec<u32>,
    vocabulary_size: usize,
    /// The tokenizer puts a space before text; decoding a whole text takes it off again.
    space_prefix: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Tokenizer {
    pub fn new(source: &TokenizerSource, vocabulary: &Vocabulary) -> Result<Self, OpenError> {
        let marks = Arc::new(Marks::new(vocabulary)?);
        let (inner, prefix, space_prefix) = match source {
            TokenizerSource::Gguf(gguf) => open_gguf(gguf)?,
            TokenizerSource::Json(text) => open_json(text)?,
        };
        Ok(Self { inner, marks, prefix, vocabulary_size: vocabulary.len(), space_prefix })
    }

    /// Ids that begin a raw prompt.
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    pub(super) fn space_prefix(&self) -> bool {
        self.space_prefix
    }

    /// Appends the ids of ordinary text; names of control tokens in it are ordinary text too.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TextError> {
        if text.is_empty() {
            return Ok(());
        }
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| TextError::invalid("prompt", format!("the text cannot be tokenized: {e}")))?;
        let fresh = encoding.get_ids();
        if let Some(id) = fresh.iter().find(|id| **id as usize >= self.vocabulary_size) {
            let message = format!("the tokenizer made id {id}; the model has {} ids", self.vocabulary_size);
            return Err(TextError::invalid("prompt", message));
        }
        ids.extend_from_slice(fresh);
        Ok(())
    }

    /// As `encode`, with the names of control tokens read as those tokens.
    pub fn encode_with_controls(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TextError> {
        self.encode_segments(&self.marks.split_names(text), ids)
    }

    pub(super) fn encode_segments(
        &self,
        segments: &[Segment<'_>],
        ids: &mut Vec<u32>,
    ) -> Result<(), TextError> {
        for segment in segments {
            match segment {
                Segment::Text(text) => self.encode(text, ids)?,
                Segment::Control(id) => ids.push(*id),
            }
        }
        Ok(())
    }
}

type Opened = (tokenizers::Tokenizer, Vec<u32>, bool);

fn open_gguf(gguf: &GgufTokenizer) -> Result<Opened, OpenError> {
    let mut inner = match gguf.model.as_str() {
        "gpt2" => byte_level::build(gguf)?,
        "llama" => sentencepiece::build(gguf)?,
        other => {
            return Err(OpenError::Tokenizer(format!(
                "model {other} is not known; known are gpt2 and llama"
            )));
        }
    };
    let added = gguf.tokens.iter().zip(&gguf.token_types);
    let added = added
        .filter(|(text, kind)| **kind == TokenType::UserDefined && !text.is_empty())
        .map(|(text, _)| AddedToken::from(text.as_str(), false).normalized(false));
    inner.add_tokens(added).map_err(failed)?;
    let prefix = gguf.bos.filter(|_| gguf.add_bos).into_iter().collect();
    Ok((inner, prefix, gguf.model == "llama" && gguf.add_space_prefix))
}

fn open_json(text: &str) -> Result<Opened, OpenError> {
    let mut inner = tokenizers::Tokenizer::from_bytes(text).map_err(failed)?;
    inner.with_padding(None).with_truncation(None).map_err(failed)?;
    // What the post-processor puts before a text is found by looking.
    let plain = inner.encode_fast("a", false).map_err(failed)?.get_ids().to_vec();
    let whole = inner.encode_fast("a", true).map_err(failed)?.get_ids().to_vec();
    let extra = whole.len().saturating_sub(plain.len());
    let prefix = if whole.ends_with(&plain) { whole[..extra].to_vec() } else { Vec::new() };
    // Control tokens in text are text.
    inner.set_encode_special_tokens(true);
    let space_prefix =
        plain.first().and_then(|id| inner.id_to_token(*id)).is_some_and(|t| t.starts_with('▁'));
    Ok((inner, prefix, space_prefix))
}

// By value, for `map_err`.
#[allow(clippy::needless_pass_by_value)]
fn failed(error: tokenizers::Error) -> OpenError {
    OpenError::Tokenizer(error.to_string())
}

/// Ids of the tokens that text can become: control and unused ones are left out.
fn text_tokens(gguf: &GgufTokenizer) -> impl Iterator<Item = (&String, u32)> {
    let kinds = gguf.tokens.iter().zip(&gguf.token_types).zip(0u32..);
    kinds
        .filter(|((_, kind), _)| matches!(kind, TokenType::Normal | TokenType::UserDefined | TokenType::Byte))
        .map(|((text, _), id)| (text, id))
}

#[cfg(test)]
mod tests;
