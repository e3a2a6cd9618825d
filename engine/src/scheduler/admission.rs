//! Who enters: checks when a request arrives, and seats and pages when its turn comes.

use shoal_model::BackendError;

use super::{FairQueue, Scheduler, Sequence, Stage};
use crate::request::{Event, Purpose, Refusal, Request, SequenceId};

/// What kept the front of a queue from being admitted.
enum Blocked {
    /// Its own kind is at its limit; other kinds may go on.
    Seat,
    /// The pool is used up; nobody younger may pass.
    Pages,
}

impl Scheduler {
    pub(super) fn submit(&mut self, id: SequenceId, request: Request) {
        if let Err(refusal) = self.check(&request) {
            let _ = request.events.send(Event::Refused(refusal));
            return;
        }
        self.totals.tokens_in += request.tokens.len() as u64;
        let tenant = request.tenant.clone();
        let sequence = Sequence::new(request);
        if let Some(finish) = sequence.already_finished(self.max_context) {
            sequence.emit(Event::Finished(finish));
            return;
        }
        self.sequences.insert(id, sequence);
        self.queue_of(id).push(&tenant, id);
    }

    fn check(&self, request: &Request) -> Result<(), Refusal> {
        let purpose = request.purpose;
        let (tokens, vocabulary) = (request.tokens.len(), self.backend.config().vocabulary);
        if tokens <= request.generated {
            return Err(Refusal::Empty);
        }
        if let Some(token) = request.tokens.iter().find(|token| **token as usize >= vocabulary) {
            return Err(Refusal::Token { token: *token, vocabulary });
        }
        if tokens > self.max_context || (tokens == self.max_context && request.generated == 0) {
            return Err(Refusal::TooLong { tokens, context: self.max_context });
        }
        if self.draining {
            return Err(Refusal::Draining);
        }
        self.role.admits(purpose)?;
        let limit = self.limits.max_waiting;
        let prefill = purpose == Purpose::Prefill;
        let waiting = self.count(|s| s.stage == Stage::Waiting && (s.purpose == Purpose::Prefill) == prefill);
        if waiting >= limit { Err(Refusal::QueueFull { purpose: purpose.name(), limit }) } else { Ok(()) }
    }

    pub(super) fn queue_of(&mut self, id: SequenceId) -> &mut FairQueue {
        match self.sequences.get(&id).map(|sequence| sequence.purpose) {
            Some(Purpose::Prefill) => &mut self.prefill,
            _ => &mut self.generate,
        }
    }

    /// Admits from both queues, the older front first, until seats or pages run out.
    ///
    /// The queues are apart because instances may fill each other's pages: a prefill that waited behind
    /// requests which themselves wait for a peer's prefill could wait forever.
    pub(super) fn admit(&mut self) -> Result<(), BackendError> {
        let (mut generate, mut prefill) = (true, true);
        loop {
            let fronts =
                [self.generate.front().filter(|_| generate), self.prefill.front().filter(|_| prefill)];
            let Some(id) = fronts.into_iter().flatten().min() else { return Ok(()) };
            match self.admit_one(id) {
                Ok(()) => self.report_cached(id)?,
                Err(Blocked::Pages) => return Ok(()),
                Err(Blocked::Seat) if Some(id) == fronts[0] => generate = false,
                Err(Blocked::Seat) => prefill = false,
            }
        }
    }

    fn admit_one(&mut self, id: SequenceId) -> Result<(), Blocked> {
        let Some(purpose) = self.sequences.get(&id).map(|sequence| sequence.purpose) else { return Ok(()) };
        if !self.has_seat(id, purpose) {
            return Err(Blocked::Seat);
        }
        let cached = self.take_pages(id).ok_or(Blocked::Pages)?;
        self.queue_of(id).pop();
        let Self { sequences, pages, .. } = self;
        let Some(sequence) = sequences.get_mut(&id) else { return Ok(()) };
        sequence.stage = Stage::Running;
        match purpose {
            Purpose::Generate | Purpose::Prefill => sequence.emit_admitted(cached),
            Purpose::GenerateRemote => {
                sequence.stage = Stage::Filling { first_token: cached };
                let range = cached / self.page_tokens..sequence.tokens.len().div_ceil(self.page_tokens);
                let slots = sequence.pages[range].iter().map(|page| pages.pool.slot(*page)).collect();
                sequence.emit(Event::Reserved { first_token: cached, slots });
            }
        }
        Ok(())
    }

    /// What a prefill for a peer found in the cache can be sent at once.
    fn report_cached(&mut self, id: SequenceId) -> Result<(), BackendError> {
        let found = |sequence: &Sequence| sequence.purpose == Purpose::Prefill && sequence.computed > 0;
        if self.sequences.get(&id).is_some_and(found) { self.report_computed(id) } else { Ok(()) }
    }

    /// A peer's prefill overlaps with decode here, so a quarter more sequences than fit the batch may be
    /// filled ahead. Reservations take at most half of the pool, beyond the first: two instances that fill
    /// each other's pages always leave each other room to do so.
    fn has_seat(&self, id: SequenceId, purpose: Purpose) -> bool {
        let batch = self.limits.max_batch;
        let running = |prefill: bool| {
            self.count(|s| s.stage == Stage::Running && (s.purpose == Purpose::Prefill) == prefill)
        };
        match purpose {
            Purpose::Prefill => running(true) < batch,
            Purpose::Generate => running(false) < batch,
            Purpose::GenerateRemote => {
                let filling = || self.sequences.values().filter(|s| matches!(s.stage, Stage::Filling { .. }));
                let reserved: usize = filling().map(|s| s.pages.len()).sum();
                let needed = self.sequences.get(&id).map_or(0, |sequence| self.pages_wanted(sequence));
                running(false) + filling().count() < batch + batch.div_ceil(4)
                    && (reserved == 0 || reserved + needed <= self.pages.pool.total() / 2)
            }
        }
    }

    /// Pages for the tokens and, where output follows, one page of room.
    fn pages_wanted(&self, sequence: &Sequence) -> usize {
        let room = if sequence.purpose == Purpose::Prefill { 0 } else { self.page_tokens };
        (sequence.tokens.len() + room).min(self.max_context).div_ceil(self.page_tokens)
    }

    /// Gives a sequence the cached prefix of its tokens and new pages for the rest; answers how many tokens
    /// were cached. At least one token is left to compute, and no page that others share is written.
    fn take_pages(&mut self, id: SequenceId) -> Option<usize> {
        let wanted = self.pages_wanted(self.sequences.get(&id)?);
        let Self { sequences, pages, page_tokens, .. } = self;
        let sequence = sequences.get_mut(&id)?;
        let computable = sequence.tokens.len() - 1;
        let mut taken = pages.cache.take_prefix(sequence.keys(computable), &mut pages.pool);
        let cached = taken.len();
        let Some(fresh) = pages.allocate(wanted - cached) else {
            pages.release(&taken);
            return None;
        };
        taken.extend(fresh);
        sequence.pages = taken;
        sequence.stored = cached;
        sequence.computed = cached * *page_tokens;
        Some(sequence.computed)
    }
}
