//! One step: which rows it computes, and what follows from their logits.

use std::time::Instant;

use shoal_model::{BackendError, LogitRows, SequenceRows};

use super::exchange::patiently;
use super::{Scheduler, Stage, chunks};
use crate::request::{Event, Finish, Purpose, SampledToken, SequenceId};

/// `tokens` tokens of a sequence, from where its computed KV ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    id: SequenceId,
    tokens: usize,
    /// The row ends where the sequence ends, so it gives logits.
    last: bool,
}

impl Scheduler {
    /// Computes one batch; false if there was nothing to compute.
    pub(super) fn step(&mut self) -> Result<bool, BackendError> {
        let mut rows = self.plan_decode();
        let decode_rows = rows.len();
        rows.extend(self.plan_prefill());
        if rows.is_empty() {
            self.outbox.send();
            return Ok(false);
        }
        let started = Instant::now();
        if !self.forward(&rows)? {
            return Ok(true);
        }
        let prompt_tokens = rows[decode_rows..].iter().map(|row| row.tokens).sum();
        self.rates.observe(decode_rows, prompt_tokens, started.elapsed().as_secs_f64());
        self.finish_rows(&rows)?;
        Ok(true)
    }

    /// Decode: one token of each stream, the oldest first. A stream that crosses a page border needs a page,
    /// and takes it from the prefix cache or else from the youngest sequence.
    fn plan_decode(&mut self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::with_capacity(self.limits.max_batch);
        let ready: Vec<SequenceId> = self
            .sequences
            .iter()
            .filter(|(_, s)| s.stage == Stage::Running && s.remaining() == 1)
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            if rows.len() == self.limits.max_batch {
                break;
            }
            if self.grow(id) {
                rows.push(Row { id, tokens: 1, last: true });
            }
        }
        rows
    }

    /// Preemption: makes room for the next token of a stream. False if the stream itself had to give way.
    fn grow(&mut self, id: SequenceId) -> bool {
        loop {
            let Some(sequence) = self.sequences.get_mut(&id) else { return false };
            if sequence.stage != Stage::Running {
                return false;
            }
            if sequence.tokens.len() <= sequence.pages.len() * self.page_tokens {
                return true;
            }
            if let Some(page) = self.pages.allocate(1) {
                sequence.pages.extend(page);
                continue;
            }
            // A peer counts on the pages of its prefill, so those are never taken back.
            let victim = self
                .sequences
                .iter()
                .rev()
                .find(|(_, s)| s.stage == Stage::Running && s.purpose != Purpose::Prefill);
            let Some(victim) = victim.map(|(id, _)| *id) else { return false };
            self.totals.preemptions += 1;
            self.requeue(victim);
        }
    }

    /// Prefill: chunks of the prompts in progress, under the role's token budget.
    fn plan_prefill(&mut self) -> Vec<Row> {
        let streams = self.count(super::Sequence::is_stream);
        let prompts: Vec<(SequenceId, usize)> = self
            .sequences
            .iter()
            .filter(|(_, s)| s.stage == Stage::Running && s.remaining() > 1)
            .map(|(id, s)| (*id, s.remaining()))
            .collect();
        if prompts.is_empty() {
            return Vec::new();
        }
        let budget = self.rates.prompt_budget(self.role, streams, self.limits.chunk);
        let needs: Vec<usize> = prompts.iter().map(|(_, need)| *need).collect();
        let shares = chunks::share(budget, &needs);
        let rows = prompts.iter().zip(shares).map(|((id, need), tokens)| Row {
            id: *id,
            tokens,
            last: tokens == *need,
        });
        rows.filter(|row| row.tokens > 0).collect()
    }

    /// Runs the backend. False if a page was held by somebody else, whose sequences were then ended.
    fn forward(&mut self, rows: &[Row]) -> Result<bool, BackendError> {
        let busy = patiently(|| self.try_forward(rows))?;
        if let Some(page) = busy {
            self.end_users_of(page);
        }
        Ok(busy.is_none())
    }

    fn try_forward(&mut self, rows: &[Row]) -> Result<(), BackendError> {
        let Self { sequences, backend, logits, outbox, .. } = self;
        let draws = backend.draws();
        let batch: Vec<SequenceRows<'_>> = rows
            .iter()
            .filter_map(|row| {
                let sequence = sequences.get(&row.id)?;
                let end = sequence.computed + row.tokens;
                Some(SequenceRows {
                    tokens: &sequence.tokens[sequence.computed..end],
                    start: sequence.computed,
                    pages: &sequence.pages,
                    logits: if row.last { sequence.wanted(draws) } else { LogitRows::None },
                })
            })
            .collect();
        backend.forward_beside(&batch, logits, &mut || outbox.send())
    }

    pub(super) fn end_users_of(&mut self, page: u32) {
        tracing::error!(page, "a KV page in use is borrowed by another thread; its sequences end");
        let users = self.sequences.iter().filter(|(_, s)| s.pages.contains(&page));
        for id in users.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end(id, Event::Finished(Finish::Aborted));
        }
    }

    /// Stores new full pages first, so that whoever sees a token finds its whole prompt in the cache.
    fn finish_rows(&mut self, rows: &[Row]) -> Result<(), BackendError> {
        let logits = std::mem::take(&mut self.logits);
        let mut logit_rows = LogitsByRow { logits, vocabulary: self.backend.config().vocabulary, next: 0 };
        let (draws, mut drawn) = (self.backend.draws(), self.backend.drawn().to_vec().into_iter());
        for row in rows {
            let Some(sequence) = self.sequences.get_mut(&row.id) else { continue };
            sequence.computed += row.tokens;
            let for_peer = sequence.purpose == Purpose::Prefill;
            self.store_full_pages(row.id);
            if for_peer {
                self.report_computed(row.id)?;
            }
            if !row.last {
                continue;
            }
            let Some(sequence) = self.sequences.get_mut(&row.id) else { continue };
            let sampled = match sequence.wanted(draws) {
                LogitRows::Drawn(_) => sequence.drawn(drawn.next()),
                LogitRows::Last | LogitRows::None => sequence.sample(logit_rows.next()),
            };
            self.take_sampled(row.id, sampled);
        }
        self.logits = logit_rows.logits;
        Ok(())
    }

    pub(super) fn store_full_pages(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let full = sequence.computed / self.page_tokens;
        if full > sequence.stored {
            let from = std::mem::replace(&mut sequence.stored, full);
            let (keys, pages) = sequence.full_pages();
            self.pages.store(keys, pages, from);
        }
    }

    fn take_sampled(&mut self, id: SequenceId, sampled: Result<SampledToken, Finish>) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        match sampled {
            sampled if sequence.purpose == Purpose::Prefill => {
                sequence.stage = Stage::Held;
                sequence.emit(sampled.map_or_else(Event::Finished, Event::Token));
            }
            Ok(token) => self.accept(id, token),
            Err(finish) => self.end(id, Event::Finished(finish)),
        }
    }

    /// Adds a token to a stream, which may end it. A peer's token is checked like everything from outside.
    pub(super) fn accept(&mut self, id: SequenceId, token: SampledToken) {
        if token.id as usize >= self.backend.config().vocabulary {
            self.end(id, Event::Finished(Finish::Aborted));
            return;
        }
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        self.totals.tokens_out += 1;
        if let Some(finish) = sequence.accept(token, self.max_context, &mut self.outbox) {
            self.end(id, Event::Finished(finish));
        }
    }
}

/// Hands out the rows of logits in batch order.
struct LogitsByRow {
    logits: Vec<f32>,
    vocabulary: usize,
    next: usize,
}

impl LogitsByRow {
    fn next(&mut self) -> &mut [f32] {
        let start = self.next * self.vocabulary;
        self.next += 1;
        &mut self.logits[start..start + self.vocabulary]
    }
}
