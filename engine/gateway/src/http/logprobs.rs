//! Log-probabilities in the two shapes that OpenAI has for them.

use serde::Serialize;
use shoal_wire::rpc::Token;

use crate::text::TextModel;

/// JSON has no infinities; OpenAI writes this for a token that cannot be.
const IMPOSSIBLE: f32 = -9999.0;

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob.max(IMPOSSIBLE) } else { IMPOSSIBLE }
}

/// Of chat: one entry per token.
#[derive(Debug, Default, Serialize)]
pub(super) struct ChatLogprobs {
    pub content: Vec<Entry>,
    refusal: Option<()>,
}

#[derive(Debug, Serialize)]
pub(super) struct Entry {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<Top>,
}

#[derive(Debug, Serialize)]
struct Top {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

pub(super) fn chat_entry(text: &TextModel, token: &Token) -> Entry {
    let chosen = text.token_text(token.id);
    let top = token.top.iter().map(|top| {
        let likely = text.token_text(top.id);
        Top { token: likely.text, logprob: finite(top.logprob), bytes: likely.bytes }
    });
    Entry {
        token: chosen.text,
        logprob: finite(token.logprob.unwrap_or(IMPOSSIBLE)),
        bytes: chosen.bytes,
        top_logprobs: top.collect(),
    }
}

/// Of completions: four lists of equal length.
#[derive(Debug, Default, Serialize)]
pub(super) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<TopMap>,
    /// Characters of the choice's text before the token.
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Appends a token; `offset` is moved behind it.
    pub(super) fn push(&mut self, text: &TextModel, token: &Token, offset: &mut usize) {
        let chosen = text.token_text(token.id);
        self.text_offset.push(*offset);
        *offset += chosen.text.chars().count();
        self.tokens.push(chosen.text);
        self.token_logprobs.push(finite(token.logprob.unwrap_or(IMPOSSIBLE)));
        let top = token.top.iter().map(|top| (text.token_text(top.id).text, finite(top.logprob)));
        self.top_logprobs.push(TopMap(top.collect()));
    }
}

/// Token to log-probability, likeliest first.
#[derive(Debug)]
struct TopMap(Vec<(String, f32)>);

impl Serialize for TopMap {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}
