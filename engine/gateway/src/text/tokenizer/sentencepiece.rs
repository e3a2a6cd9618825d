//! Sentencepiece-style BPE (Llama 2, early Mistral) from a GGUF vocabulary.
//!
//! The file has scores instead of merges: of all neighbouring pairs whose union is a token, the best-scored
//! union is merged first. Ranking every way to cut every token by the token's score gives the same order.

use shoal_checkpoint::{GgufTokenizer, TokenType};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence};
use tokenizers::{NormalizerWrapper, Tokenizer};

use super::failed;
use crate::text::error::OpenError;

/// Characters of the longest token that merges are made for; longer ones exist only as runs of spaces.
const MAX_TOKEN_CHARS: usize = 128;

pub(super) fn build(gguf: &GgufTokenizer) -> Result<Tokenizer, OpenError> {
    let mut vocabulary: Vocab = super::text_tokens(gguf).map(|(text, id)| (text.clone(), id)).collect();
    let merges = merges(gguf, &vocabulary);
    let mut bpe = BPE::builder().byte_fallback(true).fuse_unk(true);
    if let Some((name, id)) = unknown(gguf) {
        vocabulary.insert(name.clone(), id);
        bpe = bpe.unk_token(name);
    }
    let bpe = bpe.vocab_and_merges(vocabulary, merges).build().map_err(failed)?;
    let mut tokenizer = Tokenizer::new(bpe);
    let spaces: NormalizerWrapper = Replace::new(" ", "▁").map_err(failed)?.into();
    let mut steps = vec![spaces];
    if gguf.add_space_prefix {
        steps.insert(0, Prepend::new("▁".to_owned()).into());
    }
    tokenizer.with_normalizer(Some(NormalizerWrapper::from(Sequence::new(steps)))).map_err(failed)?;
    Ok(tokenizer)
}

fn unknown(gguf: &GgufTokenizer) -> Option<(String, u32)> {
    let id = gguf.unk?;
    gguf.tokens.get(id as usize).map(|name| (name.clone(), id))
}

fn merges(gguf: &GgufTokenizer, vocabulary: &Vocab) -> Vec<(String, String)> {
    let mut ranked: Vec<(f32, u32, &str)> = super::text_tokens(gguf)
        .filter(|(_, id)| gguf.token_types.get(*id as usize) == Some(&TokenType::Normal))
        .filter_map(|(text, id)| Some((*gguf.scores.get(id as usize)?, id, text.as_str())))
        .filter(|(_, _, text)| text.chars().count() <= MAX_TOKEN_CHARS)
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let cuts = |text: &'_ str| -> Vec<(String, String)> {
        text.char_indices()
            .skip(1)
            .map(|(at, _)| text.split_at(at))
            .filter(|(left, right)| vocabulary.contains_key(*left) && vocabulary.contains_key(*right))
            .map(|(left, right)| (left.to_owned(), right.to_owned()))
            .collect()
    };
    ranked.into_iter().flat_map(|(_, _, text)| cuts(text)).collect()
}
