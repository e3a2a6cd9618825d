//! One choice's tokens on their way to the client: text, stop strings, reasoning, tool calls.
//!
//! ```text
//! ids -> Detokenizer -> StopSearch -> ReasoningSplit -> CallParser -> Delta
//! ```
//!
//! Each stage holds back only what the next token may still change.

mod calls;
mod json_scan;
mod reasoning;

use std::sync::Arc;

use super::detokenizer::Detokenizer;
use super::stop::{StopSearch, StopStrings};
use super::tools::CallSyntax;
use super::vocabulary::Vocabulary;
use calls::CallParser;
use reasoning::ReasoningSplit;

/// A piece of an answer, as OpenAI streams it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    Content(String),
    /// Text between `<think>` and `</think>`.
    Reasoning(String),
    /// A call begins. `index` counts the calls of this choice from 0.
    ToolCall {
        index: usize,
        id: String,
        name: String,
    },
    /// More of a call's `arguments`, which are JSON text once all fragments are joined.
    ToolArguments {
        index: usize,
        fragment: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    More,
    /// A stop string was found; further tokens mean nothing, the engine can be told to stop.
    Stop,
}

/// How an answer ended, as far as its text tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ending {
    /// The stop string that was found; it is not in the text.
    pub stop: Option<String>,
    /// Tool calls that were begun.
    pub tool_calls: usize,
}

/// What all choices of a request share.
#[derive(Debug, Clone)]
pub(super) struct ReplyPlan {
    pub vocabulary: Arc<Vocabulary>,
    pub stops: StopStrings,
    /// Control tokens that are text here.
    pub shown: Arc<[u32]>,
    pub reasoning: Option<ReasoningStart>,
    pub calls: Option<CallPlan>,
}

/// Whether an answer begins inside its reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReasoningStart {
    /// The prompt ended with `<think>`.
    Inside,
    /// The model may write `<think>` first.
    Outside,
}

#[derive(Debug, Clone)]
pub(super) struct CallPlan {
    pub syntax: &'static CallSyntax,
    /// Functions that were offered; a call to any other is shown as text.
    pub offered: Arc<[String]>,
}

impl ReplyPlan {
    pub(super) fn start(&self) -> Reply {
        Reply {
            detokenizer: Detokenizer::showing(Arc::clone(&self.vocabulary), Arc::clone(&self.shown)),
            stops: self.stops.search(),
            reasoning: self.reasoning.map(ReasoningSplit::new),
            calls: self.calls.as_ref().map(CallParser::new),
            stopped: None,
            text: String::new(),
            certain: String::new(),
        }
    }
}

/// The state of one choice.
#[derive(Debug)]
pub struct Reply {
    detokenizer: Detokenizer,
    stops: StopSearch,
    reasoning: Option<ReasoningSplit>,
    calls: Option<CallParser>,
    stopped: Option<String>,
    text: String,
    certain: String,
}

impl Reply {
    /// Takes the next token; appends what became certain to `deltas`, which may be nothing.
    pub fn push(&mut self, id: u32, deltas: &mut Vec<Delta>) -> Flow {
        if self.stopped.is_some() {
            return Flow::Stop;
        }
        self.text.clear();
        self.detokenizer.push(id, &mut self.text);
        self.advance(deltas)
    }

    /// The end of the tokens: appends what was held back.
    pub fn finish(&mut self, deltas: &mut Vec<Delta>) -> Ending {
        if self.stopped.is_none() {
            self.text.clear();
            self.detokenizer.finish(&mut self.text);
            if self.advance(deltas) == Flow::More {
                self.certain.clear();
                self.stops.finish(&mut self.certain);
                self.pass_on(deltas);
            }
        }
        self.flush(deltas);
        let tool_calls = self.calls.as_ref().map_or(0, CallParser::begun);
        Ending { stop: self.stopped.clone(), tool_calls }
    }

    fn advance(&mut self, deltas: &mut Vec<Delta>) -> Flow {
        if self.text.is_empty() {
            return Flow::More;
        }
        self.certain.clear();
        self.stopped = self.stops.push(&self.text, &mut self.certain).map(str::to_owned);
        self.pass_on(deltas);
        if self.stopped.is_some() { Flow::Stop } else { Flow::More }
    }

    /// Hands `certain` through reasoning and calls.
    fn pass_on(&mut self, deltas: &mut Vec<Delta>) {
        if self.certain.is_empty() {
            return;
        }
        match &mut self.reasoning {
            None => content(&mut self.calls, &self.certain, deltas),
            Some(split) => {
                let rest = split.push(&self.certain, deltas);
                content(&mut self.calls, &rest, deltas);
            }
        }
    }

    fn flush(&mut self, deltas: &mut Vec<Delta>) {
        if let Some(split) = &mut self.reasoning {
            let rest = split.finish(deltas);
            content(&mut self.calls, &rest, deltas);
        }
        if let Some(calls) = &mut self.calls {
            calls.finish(deltas);
        }
    }
}

fn content(calls: &mut Option<CallParser>, text: &str, deltas: &mut Vec<Delta>) {
    match calls {
        Some(calls) => calls.push(text, deltas),
        None => push_content(deltas, text),
    }
}

/// Appends to the last delta if that is content too.
fn push_content(deltas: &mut Vec<Delta>, text: &str) {
    if text.is_empty() {
        return;
    }
    match deltas.last_mut() {
        Some(Delta::Content(last)) => last.push_str(text),
        _ => deltas.push(Delta::Content(text.to_owned())),
    }
}

#[cfg(test)]
mod tests;
