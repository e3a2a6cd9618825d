//! Commands that are not about one request.

use shoal_model::BackendError;
use shoal_wire::rpc::Load;

use super::handle::Command;
use super::{ControlError, KvSubscription, Role, RoleChange, Scheduler, Sequence, Stage, StateView};
use crate::request::{Event, Finish, Purpose};

/// Whether the thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Continue,
    Stop,
}

impl Scheduler {
    pub(super) fn obey(&mut self, command: Command) -> Result<Next, BackendError> {
        match command {
            Command::Submit(id, request) => {
                self.inbox.leave();
                self.submit(id, *request);
            }
            Command::Cancel(id) => self.end(id, Event::Finished(Finish::Aborted)),
            Command::Release(id) => self.release(id),
            Command::FillFailed(id) => self.fill_failed(id),
            Command::FillLocally { id, valid_tokens } => self.fill_locally(id, valid_tokens)?,
            Command::Filled { id, first, cached_tokens } => self.filled(id, first, cached_tokens)?,
            // Who asked may have gone; the answer is then nobody's.
            Command::SetRole { role, epoch, reply } => {
                let _ = reply.send(self.set_role(role, epoch));
            }
            Command::Drain { undo, epoch, reply } => {
                let _ = reply.send(self.drain(undo, epoch));
            }
            Command::Subscribe(reply) => {
                let _ = reply.send(self.subscribe());
            }
            Command::Check(reply) => {
                let pages = self.sequences.values().flat_map(|sequence| sequence.pages.iter().copied());
                let _ = reply.send(self.pages.check(pages));
            }
            Command::Shutdown => return Ok(Next::Stop),
        }
        Ok(Next::Continue)
    }

    fn set_role(&mut self, role: Role, epoch: u64) -> Result<RoleChange, ControlError> {
        self.accept_epoch(epoch)?;
        self.role = role;
        let (prefill_residue, decode_residue) = self.residue();
        Ok(RoleChange { role, epoch, prefill_residue, decode_residue })
    }

    fn drain(&mut self, undo: bool, epoch: u64) -> Result<usize, ControlError> {
        self.accept_epoch(epoch)?;
        self.draining = !undo;
        Ok(self.sequences.len())
    }

    /// One epoch may carry several calls; only an older one comes from somebody who was replaced.
    fn accept_epoch(&mut self, epoch: u64) -> Result<(), ControlError> {
        if epoch < self.epoch {
            return Err(ControlError::StaleEpoch { given: epoch, accepted: self.epoch });
        }
        self.epoch = epoch;
        Ok(())
    }

    /// What was published before belongs to the snapshot, what comes after to the events.
    fn subscribe(&mut self) -> KvSubscription {
        self.publish_kv();
        KvSubscription { snapshot: self.pages.cache.keys(), events: self.kv_events.subscribe() }
    }

    /// Requests that the role would not admit now: those for a peer, and those that produce here.
    fn residue(&self) -> (usize, usize) {
        let for_peer = self.count(|sequence| sequence.purpose == Purpose::Prefill);
        match self.role {
            Role::Mixed => (0, 0),
            Role::Prefill => (0, self.sequences.len() - for_peer),
            Role::Decode => (for_peer, 0),
        }
    }

    pub(super) fn publish(&mut self) {
        self.publish_kv();
        let view = self.view();
        self.state.send_if_modified(|kept| {
            let changed = *kept != view;
            *kept = view;
            changed
        });
    }

    fn publish_kv(&mut self) {
        for event in self.pages.cache.take_changes() {
            // Without subscribers the event is nobody's.
            let _ = self.kv_events.send(event);
        }
    }

    fn view(&self) -> StateView {
        let (prefill_residue, decode_residue) = self.residue();
        let used: usize = self.sequences.values().map(|sequence| sequence.pages.len()).sum();
        StateView {
            role: self.role,
            epoch: self.epoch,
            draining: self.draining,
            load: self.load(),
            prefill_residue,
            decode_residue,
            in_flight: self.sequences.len(),
            pages_borrowed: self.pages.pool.borrowed(),
            leaked_pages: self.pages.pool.references().abs_diff(used as u64) as usize,
        }
    }

    fn load(&self) -> Load {
        let pool = &self.pages.pool;
        let streams = self.count(Sequence::is_stream);
        let (role, chunk) = (self.role, self.limits.chunk);
        let queued = self.sequences.values().map(prompt_tokens_to_compute).sum::<usize>();
        Load {
            running: self.count(|s| s.stage == Stage::Running) as u32,
            waiting: self.count(|s| matches!(s.stage, Stage::Waiting | Stage::Filling { .. })) as u32,
            pages_total: pool.total() as u32,
            pages_free: pool.free() as u32,
            pages_cached: pool.idle() as u32,
            queued_prefill_tokens: queued as u32,
            prefill_rate: self.rates.prefill(role, streams, chunk) as f32,
            decode_rate: self.rates.decode() as f32,
            tokens_in: self.totals.tokens_in,
            tokens_out: self.totals.tokens_out,
            preemptions: self.totals.preemptions,
            ..Load::default()
        }
    }
}

/// A waiting request may still find part of its prompt cached; until then all of it counts.
fn prompt_tokens_to_compute(sequence: &Sequence) -> usize {
    match sequence.stage {
        Stage::Waiting if sequence.purpose != Purpose::GenerateRemote => sequence.remaining(),
        Stage::Running if sequence.remaining() > 1 => sequence.remaining(),
        _ => 0,
    }
}
