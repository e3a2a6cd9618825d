//! The scheduler: one thread that decides what the next step computes.
//!
//! ```text
//! commands ─> Waiting ──admit──> Running ──────────────────> end
//!                ^  └─> Filling ──┘  │ └─> Held (for a peer) ─┘
//!                └─────preempt───────┘
//! ```
//!
//! Each turn handles commands, ends what nobody waits for, admits, and computes one batch: one token of every
//! stream and, beside them, chunks of prompts. A role only changes what is admitted.

mod admission;
mod chunks;
mod control;
mod exchange;
mod handle;
mod outbox;
mod queue;
mod rates;
mod remote;
mod role;
mod sequence;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod thread;

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_model::Backend;
use tokio::sync::{broadcast, watch};

use crate::kv::{KvEvent, Pages};
use crate::request::{Event, Finish, SequenceId};
use handle::Inbox;
use outbox::Outbox;
use queue::FairQueue;
use rates::Rates;
use sequence::{Sequence, Stage};

pub use handle::{ControlError, Handle, KvSubscription, RoleChange};
pub use role::{DECODE_PREFILL_SHARE, Role, UnknownRole};
pub use state::StateView;
pub use thread::spawn;

/// Bounds of one scheduler. Zeroes count as 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sequences that produce a token in one step.
    pub max_batch: usize,
    /// Prompt tokens computed in one step.
    pub chunk: usize,
    /// Requests that wait for admission, per purpose.
    pub max_waiting: usize,
    /// Tokens of prompt and output together; the model and the page pool bound it too.
    pub max_context: usize,
    /// The role until somebody sets another.
    pub role: Role,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    tokens_in: u64,
    tokens_out: u64,
    preemptions: u64,
}

struct Scheduler {
    backend: Box<dyn Backend>,
    limits: Limits,
    max_context: usize,
    page_tokens: usize,
    role: Role,
    epoch: u64,
    draining: bool,
    /// Everything in flight, in order of arrival: a smaller id is older.
    sequences: BTreeMap<SequenceId, Sequence>,
    /// Waiting requests that want to produce tokens here, and those that prefill for a peer.
    generate: FairQueue,
    prefill: FairQueue,
    pages: Pages,
    rates: Rates,
    totals: Totals,
    logits: Vec<f32>,
    outbox: Outbox,
    /// By page, the generation of what the arena holds of it; 0 is none.
    published: Vec<u32>,
    kv_events: broadcast::Sender<KvEvent>,
    state: watch::Sender<StateView>,
    inbox: Arc<Inbox>,
}

impl Scheduler {
    /// Ends a sequence wherever it stands: its pages return, full ones stay in the prefix cache.
    fn end(&mut self, id: SequenceId, last: Event) {
        if let Some(sequence) = self.sequences.get(&id)
            && sequence.stage == Stage::Waiting
        {
            let tenant = sequence.tenant.clone();
            self.queue_of(id).remove(&tenant, id);
        }
        self.free_pages(id);
        if let Some(sequence) = self.sequences.remove(&id) {
            self.outbox.send();
            sequence.emit(last);
        }
    }

    /// Ends what nobody waits for any more.
    fn end_departed(&mut self) {
        let now = std::time::Instant::now();
        let departed = |sequence: &Sequence| {
            sequence.client_is_gone() || sequence.deadline.is_some_and(|deadline| deadline <= now)
        };
        let ids: Vec<SequenceId> =
            self.sequences.iter().filter(|(_, sequence)| departed(sequence)).map(|(id, _)| *id).collect();
        for id in ids {
            self.end(id, Event::Finished(Finish::Aborted));
        }
    }

    /// Back to the front of the queue, without pages; what was computed stays in the prefix cache.
    fn requeue(&mut self, id: SequenceId) {
        self.free_pages(id);
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.stage = Stage::Waiting;
            self.queue_of(id).resume(id);
        }
    }

    /// Offers full computed pages to the prefix cache and gives all of them up.
    fn free_pages(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let stored = std::mem::take(&mut sequence.stored);
        let (keys, pages) = sequence.full_pages();
        self.pages.store(keys, pages, stored);
        self.pages.cache.touch(keys);
        self.pages.release(&std::mem::take(&mut sequence.pages));
        sequence.computed = 0;
    }

    fn count(&self, matches: impl Fn(&Sequence) -> bool) -> usize {
        self.sequences.values().filter(|sequence| matches(sequence)).count()
    }
}
