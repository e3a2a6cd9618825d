//! How the rest of the process talks to the scheduler thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use shoal_wire::PageKey;
use tokio::sync::{broadcast, oneshot, watch};

use super::{Role, StateView};
use crate::kv::{Generations, KvEvent};
use crate::request::{Class, Event, Refusal, Request, SampledToken, SequenceId};

/// One instruction to the scheduler; handled between steps.
#[derive(Debug)]
pub(super) enum Command {
    Submit(SequenceId, Box<Request>),
    Cancel(SequenceId),
    Release(SequenceId),
    FillFailed(SequenceId),
    FillLocally { id: SequenceId, valid_tokens: usize },
    Filled { id: SequenceId, first: Option<SampledToken>, cached_tokens: usize },
    SetRole { role: Role, epoch: u64, reply: oneshot::Sender<Result<RoleChange, ControlError>> },
    Drain { undo: bool, epoch: u64, reply: oneshot::Sender<Result<usize, ControlError>> },
    Subscribe(oneshot::Sender<KvSubscription>),
    Check(oneshot::Sender<Result<(), String>>),
    Shutdown,
}

/// What a role change left to run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleChange {
    pub role: Role,
    pub epoch: u64,
    pub prefill_residue: usize,
    pub decode_residue: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("epoch {given} is older than {accepted}, the last one accepted")]
    StaleEpoch { given: u64, accepted: u64 },
    #[error("the engine stopped")]
    Stopped,
}

impl ControlError {
    pub fn class(&self) -> Class {
        match self {
            Self::StaleEpoch { .. } => Class::Conflict,
            Self::Stopped => Class::Fatal,
        }
    }
}

/// The prefix cache's content and what changes after it. A receiver that lags subscribes again.
#[derive(Debug)]
pub struct KvSubscription {
    pub snapshot: Vec<PageKey>,
    pub events: broadcast::Receiver<KvEvent>,
}

/// Everything the scheduler can be asked. Clones talk to the same scheduler; no call waits for a step
/// except where it is `async`.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: Sender<Command>,
    inbox: Arc<Inbox>,
    state: watch::Receiver<StateView>,
    generations: Generations,
    max_context: usize,
}

/// Submissions sent and not yet looked at, so that a long step cannot let the channel grow without bound.
#[derive(Debug)]
pub(super) struct Inbox {
    next_id: AtomicU64,
    pending: AtomicUsize,
    limit: usize,
}

impl Inbox {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { next_id: AtomicU64::new(1), pending: AtomicUsize::new(0), limit })
    }

    fn enter(&self) -> bool {
        self.pending
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < self.limit).then_some(n + 1))
            .is_ok()
    }

    pub(super) fn leave(&self) {
        self.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Handle {
    pub(super) fn new(
        commands: Sender<Command>,
        inbox: Arc<Inbox>,
        state: watch::Receiver<StateView>,
        generations: Generations,
        max_context: usize,
    ) -> Self {
        Self { commands, inbox, state, generations, max_context }
    }

    /// Hands in a request. A refusal arrives as its only event.
    pub fn submit(&self, request: Request) -> SequenceId {
        let id = SequenceId(self.inbox.next_id.fetch_add(1, Ordering::Relaxed));
        let events = request.events.clone();
        let refused = if self.inbox.enter() {
            let sent = self.commands.send(Command::Submit(id, Box::new(request)));
            sent.err().map(|_| Refusal::Stopped("its scheduler ended".into()))
        } else {
            Some(Refusal::QueueFull { purpose: request.purpose.name(), limit: self.inbox.limit })
        };
        if let Some(refusal) = refused {
            let _ = events.send(Event::Refused(refusal));
        }
        id
    }

    /// Ends a request wherever it is: `Finished(Aborted)` within one step. Unknown ids are ignored.
    pub fn cancel(&self, id: SequenceId) {
        self.send(Command::Cancel(id));
    }

    /// The pages of a computed `Prefill` request were sent; they are given back without a further event.
    pub fn release(&self, id: SequenceId) {
        self.send(Command::Release(id));
    }

    /// A peer did not fill the reserved slots and another will be asked: their generations end, and a new
    /// `Event::Reserved` follows. Call it after the transfer was unregistered.
    pub fn fill_failed(&self, id: SequenceId) {
        self.send(Command::FillFailed(id));
    }

    /// Compute the rest here. The first `valid_tokens` tokens of the reserved range landed and are trusted,
    /// whole pages of them are kept. Call it after the transfer was unregistered.
    pub fn fill_locally(&self, id: SequenceId, valid_tokens: usize) {
        self.send(Command::FillLocally { id, valid_tokens });
    }

    /// All reserved pages landed: the sequence joins the running batch. `first` is the token that the peer
    /// sampled; `None` if the grammar was already satisfied. `cached_tokens` is reported in `Admitted`.
    pub fn filled(&self, id: SequenceId, first: Option<SampledToken>, cached_tokens: usize) {
        self.send(Command::Filled { id, first, cached_tokens });
    }

    /// Changes which new work is admitted, within one step. Work admitted before runs to its end.
    /// An epoch older than the last accepted one is refused; the same call again changes nothing.
    pub async fn set_role(&self, role: Role, epoch: u64) -> Result<RoleChange, ControlError> {
        self.ask(|reply| Command::SetRole { role, epoch, reply }).await?
    }

    /// Stops admitting, or (`undo`) admits again. Answers how many requests are still in flight.
    pub async fn drain(&self, undo: bool, epoch: u64) -> Result<usize, ControlError> {
        self.ask(|reply| Command::Drain { undo, epoch, reply }).await?
    }

    /// The state after the last step.
    pub fn state(&self) -> StateView {
        self.state.borrow().clone()
    }

    /// Notified after every step that changed something; the reader sets its own pace.
    pub fn state_changes(&self) -> watch::Receiver<StateView> {
        self.state.clone()
    }

    /// Content of the prefix cache now, and every change after it.
    pub async fn subscribe(&self) -> Result<KvSubscription, ControlError> {
        self.ask(Command::Subscribe).await
    }

    /// Recounts every page from scratch: each is free, cached, held by sequences, or still borrowed.
    pub async fn check_integrity(&self) -> Result<Result<(), String>, ControlError> {
        self.ask(Command::Check).await
    }

    /// Current generations, for transfer threads.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Tokens of prompt and output together that fit here: the model's limit or the whole page pool.
    pub fn max_context(&self) -> usize {
        self.max_context
    }

    /// Ends every request with `Finished(Aborted)`, then the thread.
    pub fn shutdown(&self) {
        self.send(Command::Shutdown);
    }

    /// A scheduler that ended has no sequences left, so a lost command has no object.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply));
        answer.await.map_err(|_| ControlError::Stopped)
    }
}
