//! What the scheduler is asked to do, and what it answers.
//!
//! A request is a sequence of tokens with a purpose. Its events go to one channel; dropping the receiver
//! cancels the request within one step.

use std::time::Instant;

use shoal_wire::PageKeyer;
use tokio::sync::mpsc;

use crate::grammar::Matcher;

/// Names a request inside this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// Why a sequence is computed, and so which role admits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Prefill here, then decode to the end.
    Generate,
    /// Reserve pages, wait until a peer filled them, then decode to the end.
    GenerateRemote,
    /// Compute the prompt's KV and the first token for a peer; then hold the pages until released.
    Prefill,
}

impl Purpose {
    /// Name in messages to users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate | Self::GenerateRemote => "generate",
            Self::Prefill => "prefill",
        }
    }
}

#[derive(Debug)]
pub struct Request {
    pub purpose: Purpose,
    /// Prompt, then `generated` tokens of an earlier attempt.
    pub tokens: Vec<u32>,
    pub generated: usize,
    pub sampling: Sampling,
    /// Compiled, and already advanced over the generated tokens.
    pub grammar: Option<Matcher>,
    pub keyer: PageKeyer,
    /// Fair queueing is between tenants; the salt names one.
    pub tenant: Vec<u8>,
    pub deadline: Option<Instant>,
    pub events: mpsc::UnboundedSender<Event>,
}

/// Validated sampling parameters; see `wire` for meanings.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    pub logit_bias: Vec<(u32, f32)>,
    pub seed: u64,
    /// End-of-sequence tokens of the model (unless ignored) and the request's own.
    pub stop_token_ids: Vec<u32>,
    /// Output tokens, those of earlier attempts included; at least 1.
    pub max_tokens: usize,
    pub min_tokens: usize,
    /// Set: report the chosen token's log-probability and this many of the likeliest.
    pub logprobs: Option<usize>,
}

/// A page and the right to it: the generation changes when the page's owner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub page: u32,
    pub generation: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SampledToken {
    pub id: u32,
    pub logprob: Option<f32>,
    pub top: Vec<(u32, f32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The token itself is not emitted.
    StopToken(u32),
    Length,
    GrammarEnd,
    Aborted,
}

/// Events are bounded by the request itself: at most one per output token and per prefill chunk.
///
/// ```text
/// Generate        Admitted Token… Finished
/// GenerateRemote  Reserved (Reserved…) Admitted Token… Finished
/// Prefill         Admitted Computed… (Token | Finished(GrammarEnd)), then the pages stay until `release`
/// any of them     … Finished(Aborted) | Refused
/// ```
///
/// A channel that closes without `Finished` or `Refused` means that the scheduler died.
#[derive(Debug)]
pub enum Event {
    /// `GenerateRemote`: slots for the pages from `first_token` on; before it all is cached here. Sent again
    /// after `Handle::fill_failed`, with slots that replace the earlier ones.
    Reserved {
        first_token: usize,
        slots: Vec<Slot>,
    },
    /// `Prefill`: tokens `..done` of the prompt are in `pages` (slots of the whole sequence, from token 0).
    /// A full page is never written again; the last one is final once `Token` or `Finished` follows. Who
    /// reads a page borrows it first, then checks that its generation is current, then reads.
    Computed {
        done: usize,
        pages: Vec<Slot>,
    },
    /// Prompt tokens that were in the prefix cache; once, before the first `Token`.
    Admitted {
        cached_tokens: usize,
    },
    Token(SampledToken),
    /// The last event.
    Finished(Finish),
    /// The request cannot run here; the last event.
    Refused(Refusal),
}

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The same request will never succeed.
    Invalid,
    /// It may succeed here later.
    Transient,
    /// It belongs elsewhere, or somebody newer decides.
    Conflict,
    /// The process must end.
    Fatal,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the {purpose} queue is full ({limit} requests)")]
    QueueFull { purpose: &'static str, limit: usize },
    #[error("this instance's role is {role}; it does not admit {purpose} work")]
    Role { role: &'static str, purpose: &'static str },
    #[error("this instance is draining")]
    Draining,
    #[error("{tokens} tokens leave no room for output; the context here is {context} tokens")]
    TooLong { tokens: usize, context: usize },
    #[error("`tokens` is empty; at least one token is needed")]
    Empty,
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    Token { token: u32, vocabulary: usize },
    #[error("the engine stopped: {0}")]
    Stopped(String),
}

impl Refusal {
    pub fn class(&self) -> Class {
        match self {
            Self::TooLong { .. } | Self::Empty | Self::Token { .. } => Class::Invalid,
            Self::QueueFull { .. } | Self::Draining => Class::Transient,
            Self::Role { .. } => Class::Conflict,
            Self::Stopped(_) => Class::Fatal,
        }
    }
}
