//! Takes one `<think>...</think>` at the start of an answer apart from the answer.

use super::{Delta, ReasoningStart};
use crate::text::partial::held_tail;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

#[derive(Debug)]
enum State {
    /// Nothing but white space so far; `<think>` may come.
    Start,
    Inside,
    /// After `</think>`: line breaks before the answer are dropped.
    Gap,
    Answer,
}

#[derive(Debug)]
pub(super) struct ReasoningSplit {
    state: State,
    held: String,
    /// Reasoning was emitted, so a leading line break is no longer leading.
    begun: bool,
}

impl ReasoningSplit {
    pub(super) fn new(start: ReasoningStart) -> Self {
        let state = match start {
            ReasoningStart::Inside => State::Inside,
            ReasoningStart::Outside => State::Start,
        };
        Self { state, held: String::new(), begun: false }
    }

    /// Emits reasoning; returns the text that is answer.
    pub(super) fn push(&mut self, text: &str, deltas: &mut Vec<Delta>) -> String {
        if matches!(self.state, State::Answer) {
            return text.to_owned();
        }
        self.held.push_str(text);
        if matches!(self.state, State::Start) {
            let lead = self.held.trim_start();
            if let Some(after) = lead.strip_prefix(OPEN) {
                self.held = after.to_owned();
                self.state = State::Inside;
            } else if !OPEN.starts_with(lead) {
                self.state = State::Answer;
                return std::mem::take(&mut self.held);
            }
        }
        if matches!(self.state, State::Inside) {
            self.inside(deltas);
        }
        if matches!(self.state, State::Gap) {
            let answer = self.held.trim_start_matches(['\n', '\r']).to_owned();
            self.held.clear();
            if !answer.is_empty() {
                self.state = State::Answer;
            }
            return answer;
        }
        String::new()
    }

    /// The end: what was held back is reasoning or answer, as it stands.
    pub(super) fn finish(&mut self, deltas: &mut Vec<Delta>) -> String {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Inside => {
                self.emit(&held, deltas);
                String::new()
            }
            _ => held,
        }
    }

    fn inside(&mut self, deltas: &mut Vec<Delta>) {
        let held = std::mem::take(&mut self.held);
        if let Some((reasoning, rest)) = held.split_once(CLOSE) {
            self.emit(reasoning, deltas);
            rest.clone_into(&mut self.held);
            self.state = State::Gap;
            return;
        }
        let certain = held.len() - held_tail(&held, CLOSE);
        self.emit(&held[..certain], deltas);
        held[certain..].clone_into(&mut self.held);
    }

    fn emit(&mut self, text: &str, deltas: &mut Vec<Delta>) {
        let text = if self.begun { text } else { text.trim_start_matches(['\n', '\r']) };
        if text.is_empty() {
            return;
        }
        self.begun = true;
        match deltas.last_mut() {
            Some(Delta::Reasoning(last)) => last.push_str(text),
            _ => deltas.push(Delta::Reasoning(text.to_owned())),
        }
    }
}
