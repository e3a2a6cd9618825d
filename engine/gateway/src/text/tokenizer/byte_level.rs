//! Byte-level BPE (GPT-2 and its descendants) from a GGUF vocabulary.
//!
//! The models of this kind differ in how text is cut into words before merging. GGUF names the rule in
//! `tokenizer.ggml.pre`; one row per rule here.

use shoal_checkpoint::GgufTokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{NormalizerWrapper, SplitDelimiterBehavior, Tokenizer};

use super::failed;
use crate::text::error::OpenError;

/// How a model cuts text into words.
struct Rule {
    names: &'static [&'static str],
    cut: Cut,
    /// A word that is a token as it stands is not rebuilt by merges.
    whole_words: bool,
    /// Text is brought into Unicode's composed form first.
    compose: bool,
}

enum Cut {
    /// GPT-2's own rule.
    Gpt2,
    /// GPT-2's rule after every digit was cut off alone.
    Digits,
    Pattern(&'static str),
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const RULES: &[Rule] = &[
    Rule { names: &["gpt-2"], cut: Cut::Gpt2, whole_words: false, compose: false },
    Rule { names: &["smollm"], cut: Cut::Digits, whole_words: false, compose: false },
    Rule {
        names: &["qwen2", "deepseek-r1-qwen"],
        cut: Cut::Pattern(QWEN2),
        whole_words: false,
        compose: true,
    },
    Rule {
        names: &["llama-bpe", "llama3", "llama-v3"],
        cut: Cut::Pattern(LLAMA3),
        whole_words: true,
        compose: false,
    },
    Rule { names: &["tekken"], cut: Cut::Pattern(TEKKEN), whole_words: true, compose: false },
];

pub(super) fn build(gguf: &GgufTokenizer) -> Result<Tokenizer, OpenError> {
    let rule = rule(gguf.pre.as_deref())?;
    let vocabulary: Vocab = super::text_tokens(gguf).map(|(text, id)| (text.clone(), id)).collect();
    let merges = merges(gguf, &vocabulary)?;
    let bpe = BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(rule.whole_words);
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(failed)?);
    tokenizer.with_pre_tokenizer(Some(cutter(&rule.cut)?));
    if rule.compose {
        tokenizer.with_normalizer(Some(NormalizerWrapper::from(NFC))).map_err(failed)?;
    }
    Ok(tokenizer)
}

fn rule(name: Option<&str>) -> Result<&'static Rule, OpenError> {
    let known = || RULES.iter().flat_map(|rule| rule.names).copied().collect::<Vec<_>>().join(", ");
    let Some(name) = name else {
        return Err(OpenError::Tokenizer(format!("tokenizer.ggml.pre is missing; known are {}", known())));
    };
    RULES.iter().find(|rule| rule.names.contains(&name)).ok_or_else(|| {
        OpenError::Tokenizer(format!(
            "tokenizer.ggml.pre is {name:?}, which is not known; known are {}",
            known()
        ))
    })
}

fn cutter(cut: &Cut) -> Result<PreTokenizerWrapper, OpenError> {
    let bytes = |own_rule: bool| PreTokenizerWrapper::from(ByteLevel::new(false, false, own_rule));
    Ok(match cut {
        Cut::Gpt2 => bytes(true),
        Cut::Digits => Sequence::new(vec![Digits::new(true).into(), bytes(true)]).into(),
        Cut::Pattern(pattern) => {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
            Sequence::new(vec![split.into(), bytes(false)]).into()
        }
    })
}

/// Merges as pairs, each checked against the vocabulary: both sides and their union must be tokens.
fn merges(gguf: &GgufTokenizer, vocabulary: &Vocab) -> Result<Vec<(String, String)>, OpenError> {
    let pair = |(rank, merge): (usize, &String)| {
        // The separator is the first space that is not the first character.
        let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
        at.map(|at| (merge[..at].to_owned(), merge[at + 1..].to_owned()))
            .filter(|(left, right)| {
                [left, right, &format!("{left}{right}")].into_iter().all(|part| vocabulary.contains_key(part))
            })
            .ok_or_else(|| {
                OpenError::Tokenizer(format!(
                    "tokenizer.ggml.merges[{rank}] is not a pair of tokens: {merge:?}"
                ))
            })
    };
    gguf.merges.iter().enumerate().map(pair).collect()
}
