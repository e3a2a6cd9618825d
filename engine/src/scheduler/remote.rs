//! Sequences whose prompt a peer computes, and those computed for a peer.
//!
//! A reserved page's generation ends with the reservation, however that ends: a late or repeated frame then
//! names a generation that is not current, and lands nowhere.

use shoal_model::BackendError;

use super::{Scheduler, Sequence, Stage};
use crate::request::{Event, Finish, Purpose, SampledToken, SequenceId};

impl Scheduler {
    /// All pages landed.
    pub(super) fn filled(
        &mut self,
        id: SequenceId,
        first: Option<SampledToken>,
        cached_tokens: usize,
    ) -> Result<(), BackendError> {
        let Some((sequence, first_token)) = filling(&mut self.sequences, id) else { return Ok(()) };
        let end = sequence.tokens.len().div_ceil(self.page_tokens);
        if !self.adopt(id, first_token / self.page_tokens..end)? {
            return Ok(());
        }
        let Some((sequence, _)) = filling(&mut self.sequences, id) else { return Ok(()) };
        for page in &sequence.pages[first_token / self.page_tokens..] {
            self.pages.pool.renew(*page);
        }
        sequence.purpose = Purpose::Generate;
        sequence.stage = Stage::Running;
        sequence.computed = sequence.tokens.len();
        sequence.emit_admitted(cached_tokens);
        self.store_full_pages(id);
        match first {
            Some(token) => self.accept(id, token),
            None => self.end(id, Event::Finished(Finish::GrammarEnd)),
        }
        Ok(())
    }

    /// Another peer will be asked: new slots, as soon as there are any.
    pub(super) fn fill_failed(&mut self, id: SequenceId) {
        if filling(&mut self.sequences, id).is_some() {
            self.requeue(id);
        }
    }

    /// The rest is computed here. Pages that did not land may still be written by the peer, so they are
    /// replaced; those that landed whole are kept.
    pub(super) fn fill_locally(&mut self, id: SequenceId, valid_tokens: usize) -> Result<(), BackendError> {
        let Some((sequence, first_token)) = filling(&mut self.sequences, id) else { return Ok(()) };
        let end = sequence.tokens.len().div_ceil(self.page_tokens);
        let landed = first_token.saturating_add(valid_tokens);
        let kept = if landed >= sequence.tokens.len() { end } else { landed / self.page_tokens };
        if !self.adopt(id, first_token / self.page_tokens..kept)? {
            return Ok(());
        }
        let Some((sequence, _)) = filling(&mut self.sequences, id) else { return Ok(()) };
        sequence.purpose = Purpose::Generate;
        sequence.stage = Stage::Running;
        sequence.computed = (kept * self.page_tokens).min(sequence.tokens.len() - 1);
        for page in &sequence.pages[first_token / self.page_tokens..kept] {
            self.pages.pool.renew(*page);
        }
        let lost = sequence.pages.split_off(kept);
        self.pages.release(&lost);
        match self.pages.allocate(lost.len()) {
            Some(fresh) => {
                sequence.pages.extend(fresh);
                sequence.emit_admitted(first_token);
            }
            None => self.requeue(id),
        }
        Ok(())
    }

    /// A peer has its pages.
    pub(super) fn release(&mut self, id: SequenceId) {
        if self.sequences.get(&id).is_some_and(|sequence| sequence.stage == Stage::Held) {
            self.free_pages(id);
            self.sequences.remove(&id);
        }
    }

    /// Tells the sender which pages are final up to which token.
    pub(super) fn report_computed(&mut self, id: SequenceId) -> Result<(), BackendError> {
        self.publish_pages(id)?;
        if let Some(sequence) = self.sequences.get(&id) {
            let slots = sequence.pages.iter().map(|page| self.pages.pool.slot(*page)).collect();
            sequence.emit(Event::Computed { done: sequence.computed, pages: slots });
        }
        Ok(())
    }
}

/// The sequence, if it waits to be filled; anything else is a command that came late.
fn filling(
    sequences: &mut std::collections::BTreeMap<SequenceId, Sequence>,
    id: SequenceId,
) -> Option<(&mut Sequence, usize)> {
    let sequence = sequences.get_mut(&id)?;
    match sequence.stage {
        Stage::Filling { first_token } => Some((sequence, first_token)),
        _ => None,
    }
}
