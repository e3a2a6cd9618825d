//! One request while it is in the scheduler.

use std::time::Instant;

use shoal_model::LogitRows;
use shoal_wire::{PageKey, PageKeyer};
use tokio::sync::mpsc;

use super::outbox::Outbox;
use crate::grammar::Matcher;
use crate::request::{Event, Finish, Purpose, Request, SampledToken, Sampling};
use crate::sampling::{History, drawable, sample};

/// Where a sequence stands. It uses pages in every stage but `Waiting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    /// Slots are reserved from `first_token` on; a peer fills them.
    Filling {
        first_token: usize,
    },
    Running,
    /// Prefilled for a peer; the pages stay until they were sent.
    Held,
}

#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) purpose: Purpose,
    pub(super) stage: Stage,
    /// Prompt and output so far.
    pub(super) tokens: Vec<u32>,
    prompt: usize,
    /// KV of `tokens[..computed]` is in `pages`.
    pub(super) computed: usize,
    pub(super) pages: Vec<u32>,
    /// Keys of the full pages among `tokens`, as far as they were needed.
    keys: Vec<PageKey>,
    /// Full pages already offered to the prefix cache.
    pub(super) stored: usize,
    pub(super) tenant: Vec<u8>,
    pub(super) deadline: Option<Instant>,
    keyer: PageKeyer,
    sampling: Sampling,
    history: History,
    grammar: Option<Matcher>,
    events: mpsc::UnboundedSender<Event>,
    admitted: bool,
}

impl Sequence {
    pub(super) fn new(request: Request) -> Self {
        let Request { purpose, tokens, generated, sampling, grammar, keyer, tenant, deadline, events } =
            request;
        let prompt = tokens.len().saturating_sub(generated);
        let history = History::new(&sampling, &tokens[..prompt], &tokens[prompt..]);
        Self {
            purpose,
            stage: Stage::Waiting,
            tokens,
            prompt,
            computed: 0,
            pages: Vec::new(),
            keys: Vec::new(),
            stored: 0,
            tenant,
            deadline,
            keyer,
            sampling,
            history,
            grammar,
            events,
            admitted: false,
        }
    }

    /// A closed channel is noticed by the scheduler at the next step.
    pub(super) fn emit(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Reports the cached prompt tokens, the first time only.
    pub(super) fn emit_admitted(&mut self, cached_tokens: usize) {
        if !std::mem::replace(&mut self.admitted, true) {
            self.emit(Event::Admitted { cached_tokens });
        }
    }

    pub(super) fn client_is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// Tokens whose KV is missing; 1 means that the next step gives a token.
    pub(super) fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Produces tokens in this batch, not for a peer.
    pub(super) fn is_stream(&self) -> bool {
        self.stage == Stage::Running && self.purpose != Purpose::Prefill && self.remaining() == 1
    }

    /// Keys of the full pages within the first `tokens` tokens.
    pub(super) fn keys(&mut self, tokens: usize) -> &[PageKey] {
        let page = self.keyer.page_tokens();
        let wanted = tokens.min(self.tokens.len()) / page;
        while self.keys.len() < wanted {
            let start = self.keys.len() * page;
            let key = self.keyer.next(self.keys.last().copied(), &self.tokens[start..start + page]);
            self.keys.push(key);
        }
        &self.keys[..wanted]
    }

    /// Keys and pages of the full pages that are computed; the second list goes on with pages that are not.
    pub(super) fn full_pages(&mut self) -> (&[PageKey], &[u32]) {
        let full = self.keys(self.computed).len();
        (&self.keys[..full], &self.pages)
    }

    /// Why nothing has to be computed at all, if so.
    pub(super) fn already_finished(&self, max_context: usize) -> Option<Finish> {
        if self.grammar.as_ref().is_some_and(Matcher::is_finished) {
            return Some(Finish::GrammarEnd);
        }
        let generated = self.tokens.len() - self.prompt;
        let full = generated > 0 && self.tokens.len() >= max_context;
        (full || generated >= self.sampling.max_tokens).then_some(Finish::Length)
    }

    /// What the next token is made of: a draw of the backend's own if it draws and nothing else matters.
    pub(super) fn wanted(&self, draws: bool) -> LogitRows {
        let index = self.tokens.len() - self.prompt;
        let draw = drawable(&self.sampling, &self.history, self.grammar.as_ref(), index);
        draw.filter(|_| draws).map_or(LogitRows::Last, LogitRows::Drawn)
    }

    /// The token that a backend drew; none of the vocabulary stands for none at all.
    pub(super) fn drawn(&mut self, id: Option<u32>) -> Result<SampledToken, Finish> {
        let id = id.filter(|id| *id != u32::MAX).ok_or_else(|| self.dead_end())?;
        Ok(SampledToken { id, logprob: None, top: Vec::new() })
    }

    /// The next token, or why there is none.
    pub(super) fn sample(&mut self, logits: &mut [f32]) -> Result<SampledToken, Finish> {
        let index = self.tokens.len() - self.prompt;
        match sample(logits, &self.sampling, &self.history, self.grammar.as_mut(), index) {
            Ok(Some(token)) => Ok(token),
            Ok(None) => Err(self.dead_end()),
            Err(error) => {
                tracing::warn!(%error, "a grammar exceeded its limits");
                Err(Finish::Aborted)
            }
        }
    }

    /// Takes a sampled token into the output and to its reader, unless it ends the sequence unsaid.
    pub(super) fn accept(
        &mut self,
        token: SampledToken,
        max_context: usize,
        outbox: &mut Outbox,
    ) -> Option<Finish> {
        let id = token.id;
        if self.sampling.stop_token_ids.contains(&id) {
            return Some(Finish::StopToken(id));
        }
        if let Some(grammar) = &mut self.grammar
            && let Err(error) = grammar.consume(id)
        {
            tracing::warn!(%error, "a sampled token does not follow its grammar");
            return Some(Finish::Aborted);
        }
        self.tokens.push(id);
        self.history.push(id);
        outbox.put(&self.events, Event::Token(token));
        self.already_finished(max_context)
    }

    /// No token is possible: either the output is complete, or grammar and parameters contradict each other,
    /// or the model is broken.
    fn dead_end(&mut self) -> Finish {
        let complete = self.grammar.as_mut().is_some_and(Matcher::may_end);
        if complete { Finish::GrammarEnd } else { Finish::Aborted }
    }
}
