//! The vocabulary of a `tokenizer.json`. Tokenizing itself is left to its own library; this only says which
//! bytes each id stands for.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::ModelConfig;
use crate::error::{Fault, Part, Problem};
use crate::vocabulary::{Spelling, Vocabulary, VocabularyBuilder};

#[derive(Deserialize)]
struct TokenizerJson {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    pre_tokenizer: Value,
}

#[derive(Deserialize)]
struct Model {
    vocab: Tokens,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tokens {
    /// BPE: text to id.
    Ids(BTreeMap<String, u32>),
    /// Unigram: text and score by id.
    Scored(Vec<(String, f64)>),
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    special: bool,
}

/// What an id stands for, before it is decoded.
enum Entry<'a> {
    Spelled(&'a str),
    Added(&'a AddedToken),
}

/// Ids beyond the configured vocabulary cannot come out of the model and are left out.
pub(super) fn vocabulary(json: &str, config: &ModelConfig) -> Result<Vocabulary, Fault> {
    let tokenizer: TokenizerJson =
        serde_json::from_str(json).map_err(|error| Part::File.has(Problem::Json(error)))?;
    let spelling = spelling(&tokenizer)?;
    let mut entries: BTreeMap<u32, Entry<'_>> = match &tokenizer.model.vocab {
        Tokens::Ids(ids) => ids.iter().map(|(text, id)| (*id, Entry::Spelled(text))).collect(),
        Tokens::Scored(list) => (0..).zip(list.iter().map(|(text, _)| Entry::Spelled(text))).collect(),
    };
    entries.extend(tokenizer.added_tokens.iter().map(|token| (token.id, Entry::Added(token))));
    let mut builder = VocabularyBuilder::default();
    for id in 0..config.vocabulary as u32 {
        match entries.get(&id) {
            None => builder.push(&[], true),
            Some(Entry::Spelled(text)) => builder.push(&spelling.decode(text), false),
            Some(Entry::Added(token)) => builder.push(token.content.as_bytes(), token.special),
        }
    }
    Ok(builder.finish(config.vocabulary, config.bos, config.eos.clone()))
}

fn spelling(tokenizer: &TokenizerJson) -> Result<Spelling, Fault> {
    let mentions = |wanted: &str| {
        [&tokenizer.decoder, &tokenizer.pre_tokenizer].into_iter().any(|stage| has_stage(stage, wanted))
    };
    if mentions("ByteLevel") {
        return Ok(Spelling::ByteLevel);
    }
    if mentions("ByteFallback") || mentions("Metaspace") {
        return Ok(Spelling::SentencePiece);
    }
    let found = tokenizer.decoder.get("type").unwrap_or(&Value::Null);
    let allowed = "ByteLevel, ByteFallback and Metaspace";
    Err(Part::key("decoder.type").has(Problem::not_allowed(found, allowed)))
}

/// A stage, or one of a `Sequence`, which calls its parts `decoders` or `pretokenizers`.
fn has_stage(stage: &Value, wanted: &str) -> bool {
    let parts = ["decoders", "pretokenizers"].into_iter().filter_map(|key| stage.get(key)?.as_array());
    stage.get("type").and_then(Value::as_str) == Some(wanted)
        || parts.flatten().any(|part| part.get("type").and_then(Value::as_str) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SyntheticModel;
    use crate::damage::{self, damage, damaged};

    const ORIGINAL: &str = r#"{"added_tokens":[{"id":0,"content":"<s>","special":true}],"decoder":{"type":"ByteLevel"},"model":{"vocab":{"a":1,"\u0120b":2}}}"#;

    proptest! {
        #![proptest_config(damage::config())]

        #[test]
        fn a_damaged_tokenizer_has_every_id_or_is_refused(damages in prop::collection::vec(damage(), 1..4)) {
            let config = SyntheticModel::llama2().config;
            let bytes = damaged(ORIGINAL.as_bytes(), ORIGINAL.len(), &damages);
            if let Ok(vocabulary) = vocabulary(&String::from_utf8_lossy(&bytes), &config) {
                prop_assert_eq!(vocabulary.len(), config.vocabulary);
            }
        }
    }
}
