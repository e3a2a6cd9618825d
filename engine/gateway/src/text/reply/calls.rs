//! Finds tool calls in an answer while it streams.
//!
//! Driven by the description of a call syntax (`CallSyntax`). Text that only looked like a call, and calls to
//! functions that were not offered, come out as the content they are.

use super::json_scan::{CallScan, Scan};
use super::{CallPlan, Delta, push_content};
use crate::text::partial::held_tail;
use crate::text::tools::new_call_id;

#[derive(Debug)]
enum State {
    /// Ordinary text; the opening mark may come.
    Content,
    /// Behind the opening mark or a separator, before a call's `{`.
    Before,
    Call(Box<Call>),
    /// Behind a call's `}`.
    After,
}

#[derive(Debug, Default)]
struct Call {
    scan: CallScan,
    announced: bool,
    /// Bytes of `scan.raw` whose arguments were passed on.
    sent: usize,
}

#[derive(Debug)]
pub(super) struct CallParser {
    plan: CallPlan,
    state: State,
    /// Text not yet decided.
    held: String,
    /// The mark on the way into the present call, with the white space before it; content if it is no call.
    mark: String,
    /// What lay between the mark and the call's `{`; looked at afresh if it is no call.
    skipped: String,
    /// Content other than white space was emitted, or a call.
    begun_text: bool,
    calls: usize,
}

impl CallParser {
    pub(super) fn new(plan: &CallPlan) -> Self {
        Self {
            plan: plan.clone(),
            state: State::Content,
            held: String::new(),
            mark: String::new(),
            skipped: String::new(),
            begun_text: false,
            calls: 0,
        }
    }

    /// Calls announced so far.
    pub(super) fn begun(&self) -> usize {
        self.calls
    }

    pub(super) fn push(&mut self, text: &str, deltas: &mut Vec<Delta>) {
        self.held.push_str(text);
        // Each step consumes held text or changes state towards consuming it; no step can do either twice.
        while !self.held.is_empty() && self.step(deltas) {}
    }

    /// The end of the answer: what is still undecided is content.
    pub(super) fn finish(&mut self, deltas: &mut Vec<Delta>) {
        if let State::Call(call) = &mut self.state {
            if call.announced {
                self.state = State::After;
            } else {
                let raw = std::mem::take(&mut call.scan.raw);
                self.give_back(&raw, deltas);
            }
        }
        let held = std::mem::take(&mut self.held);
        let text = std::mem::take(&mut self.mark) + &std::mem::take(&mut self.skipped) + &held;
        if self.calls == 0 || !text.trim().is_empty() {
            push_content(deltas, &text);
        }
    }

    /// True if more can be decided.
    fn step(&mut self, deltas: &mut Vec<Delta>) -> bool {
        match self.state {
            State::Content => self.content(deltas),
            State::Before => self.before(deltas),
            State::Call(_) => self.call(deltas),
            State::After => self.after(deltas),
        }
    }

    fn content(&mut self, deltas: &mut Vec<Delta>) -> bool {
        let syntax = self.plan.syntax;
        if syntax.bare && !self.begun_text {
            let lead = self.held.trim_start();
            if lead.starts_with('{') {
                self.skipped = self.held[..self.held.len() - lead.len()].to_owned();
                self.held = lead.to_owned();
                self.state = State::Before;
                return true;
            }
        }
        if let Some(at) = self.held.find(syntax.open) {
            let rest = self.held.split_off(at);
            let text = std::mem::replace(&mut self.held, rest[syntax.open.len()..].to_owned());
            // White space before a call belongs to the call.
            self.emit(text.trim_end(), deltas);
            self.mark = text[text.trim_end().len()..].to_owned() + syntax.open;
            self.state = State::Before;
            return true;
        }
        let held_back = held_tail(&self.held, syntax.open);
        let certain = self.held[..self.held.len() - held_back].trim_end().len();
        let rest = self.held.split_off(certain);
        let text = std::mem::replace(&mut self.held, rest);
        self.emit(&text, deltas);
        false
    }

    fn before(&mut self, deltas: &mut Vec<Delta>) -> bool {
        let syntax = self.plan.syntax;
        let lead = self.held.trim_start_matches(|c: char| c.is_whitespace() || (syntax.list && c == '['));
        if lead.is_empty() {
            return self.skip(self.held.len());
        }
        if !lead.starts_with('{') {
            self.give_back("", deltas);
            return true;
        }
        let skipped = self.held.len() - lead.len();
        self.skip(skipped);
        self.state = State::Call(Box::default());
        true
    }

    fn call(&mut self, deltas: &mut Vec<Delta>) -> bool {
        let State::Call(call) = &mut self.state else { return false };
        let text = std::mem::take(&mut self.held);
        let scan = call.scan.push(&text);
        if let (Some(name), false) = (&call.scan.name, call.announced)
            && self.plan.offered.contains(name)
        {
            call.announced = true;
            let id = new_call_id(self.plan.syntax.id_length);
            deltas.push(Delta::ToolCall { index: self.calls, id, name: name.clone() });
            self.calls += 1;
            self.begun_text = true;
            self.mark.clear();
            self.skipped.clear();
        }
        if call.announced {
            pass_arguments(call, self.calls - 1, scan != Scan::More, deltas);
        }
        match scan {
            Scan::More if call.announced || call.scan.name.is_none() => {}
            Scan::Done(end) if call.announced => {
                self.held = call.scan.raw.split_off(end);
                self.state = State::After;
            }
            Scan::Broken if call.announced => self.state = State::After,
            _ => {
                let raw = std::mem::take(&mut call.scan.raw);
                self.give_back(&raw, deltas);
            }
        }
        !self.held.is_empty()
    }

    fn after(&mut self, _deltas: &mut Vec<Delta>) -> bool {
        let syntax = self.plan.syntax;
        let lead = self.held.trim_start();
        if lead.is_empty() {
            return false;
        }
        if let Some(rest) = syntax.separator.and_then(|separator| lead.strip_prefix(separator)) {
            self.mark = syntax.separator.unwrap_or_default().to_owned();
            self.held = rest.to_owned();
            self.state = State::Before;
        } else if let Some(rest) = lead.strip_prefix(syntax.close).filter(|_| !syntax.close.is_empty()) {
            self.held = rest.to_owned();
            self.state = State::Content;
        } else if syntax.close.starts_with(lead) && !syntax.close.is_empty() {
            return false;
        } else {
            self.state = State::Content;
        }
        true
    }

    /// What was taken for a call is none: its mark is content, and what follows is looked at afresh.
    fn give_back(&mut self, raw: &str, deltas: &mut Vec<Delta>) {
        self.state = State::Content;
        self.begun_text = true;
        push_content(deltas, &std::mem::take(&mut self.mark));
        let again = std::mem::take(&mut self.skipped) + raw;
        self.held.insert_str(0, &again);
    }

    fn skip(&mut self, bytes: usize) -> bool {
        let rest = self.held.split_off(bytes);
        let skipped = std::mem::replace(&mut self.held, rest);
        self.skipped.push_str(&skipped);
        false
    }

    fn emit(&mut self, text: &str, deltas: &mut Vec<Delta>) {
        if !text.is_empty() {
            self.begun_text = true;
            push_content(deltas, text);
        }
    }
}

/// Passes on the arguments that arrived since the last time.
fn pass_arguments(call: &mut Call, index: usize, ended: bool, deltas: &mut Vec<Delta>) {
    let fragment = match &call.scan.arguments {
        None if ended => "{}".to_owned(),
        None => return,
        Some(range) if call.scan.raw[range.start..].starts_with('"') => {
            // Arguments written as a JSON string: the text inside is what the client wants.
            if !call.scan.arguments_complete || call.sent > 0 {
                return;
            }
            call.sent = range.end;
            serde_json::from_str(&call.scan.raw[range.clone()]).unwrap_or_default()
        }
        Some(range) => {
            let from = call.sent.max(range.start);
            call.sent = range.end;
            call.scan.raw[from..range.end.max(from)].to_owned()
        }
    };
    if !fragment.is_empty() {
        deltas.push(Delta::ToolArguments { index, fragment });
    }
}
