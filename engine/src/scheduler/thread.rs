//! The scheduler's thread: start, turns, end. It never waits while there is something to compute, and never
//! spins while there is nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shoal_model::{Backend, BackendError, LogitRows, SequenceRows};
use shoal_wire::limits::GRAMMAR_STACK_BYTES;
use tokio::sync::{broadcast, watch};

use super::control::Next;
use super::exchange::NOT_PUBLISHED;
use super::handle::{Command, Inbox};
use super::outbox::Outbox;
use super::{FairQueue, Handle, Limits, Rates, Scheduler, StateView, Totals};
use crate::kv::Pages;
use crate::request::{Event, Finish, Refusal};

/// How often to look for deadlines, gone clients and borrowed pages while nothing is computed.
const IDLE_CHECK: Duration = Duration::from_millis(20);
/// KV events a slow subscriber may lag behind before it has to start from a snapshot again.
const KV_EVENT_BACKLOG: usize = 1024;

/// Starts the scheduler thread. It ends after `Handle::shutdown` or when every handle is gone, or with the
/// error that lost the device; requests then end with `Refused(Stopped)` and the process has no use.
pub fn spawn(
    backend: Box<dyn Backend>,
    limits: Limits,
) -> io::Result<(Handle, JoinHandle<Result<(), BackendError>>)> {
    let limits = Limits {
        max_batch: limits.max_batch.max(1),
        chunk: limits.chunk.max(1),
        max_waiting: limits.max_waiting.max(1),
        ..limits
    };
    let pages = Pages::new(Arc::clone(backend.arena()));
    let published = vec![NOT_PUBLISHED; pages.pool.total()];
    let page_tokens = backend.geometry().page_tokens;
    let model_context = backend.config().max_context;
    let max_context = limits.max_context.min(model_context).min(pages.pool.total() * page_tokens);
    // Both purposes have a queue of their own.
    let inbox = Inbox::new(2 * limits.max_waiting);
    let (sender, commands) = channel();
    let (state, watcher) = watch::channel(StateView::new(limits.role));
    let handle =
        Handle::new(sender, Arc::clone(&inbox), watcher, pages.pool.generations().clone(), max_context);
    let scheduler = Scheduler {
        backend,
        limits,
        max_context,
        page_tokens,
        role: limits.role,
        epoch: 0,
        draining: false,
        sequences: BTreeMap::new(),
        generate: FairQueue::default(),
        prefill: FairQueue::default(),
        pages,
        rates: Rates::default(),
        totals: Totals::default(),
        logits: Vec::new(),
        outbox: Outbox::default(),
        published,
        kv_events: broadcast::channel(KV_EVENT_BACKLOG).0,
        state,
        inbox,
    };
    // Token masks of grammars are computed on this thread.
    let thread = std::thread::Builder::new().name("scheduler".into()).stack_size(GRAMMAR_STACK_BYTES);
    Ok((handle, thread.spawn(move || scheduler.run(&commands))?))
}

impl Scheduler {
    fn run(mut self, commands: &Receiver<Command>) -> Result<(), BackendError> {
        let outcome = self.warm_up().and_then(|()| self.turns(commands));
        let last = || match &outcome {
            Ok(()) => Event::Finished(Finish::Aborted),
            Err(error) => Event::Refused(Refusal::Stopped(error.to_string())),
        };
        for id in self.sequences.keys().copied().collect::<Vec<_>>() {
            self.end(id, last());
        }
        self.outbox.send();
        self.publish();
        while let Ok(command) = commands.try_recv() {
            if let Command::Submit(_, request) = command {
                let refusal = Refusal::Stopped("it was shut down".into());
                let _ = request.events.send(Event::Refused(refusal));
            }
        }
        outcome
    }

    fn turns(&mut self, commands: &Receiver<Command>) -> Result<(), BackendError> {
        loop {
            self.pages.pool.reclaim();
            self.end_departed();
            self.admit()?;
            let worked = self.step()?;
            self.publish();
            if self.obey_all(commands, worked)? == Next::Stop {
                return Ok(());
            }
        }
    }

    /// Handles every command that has come; waits for one if nothing else is to be done.
    fn obey_all(&mut self, commands: &Receiver<Command>, busy: bool) -> Result<Next, BackendError> {
        let watching = !self.sequences.is_empty() || self.pages.pool.borrowed() > 0;
        let mut received = match (busy, watching) {
            (true, _) => commands.try_recv(),
            (false, true) => commands.recv_timeout(IDLE_CHECK).map_err(|error| match error {
                RecvTimeoutError::Timeout => TryRecvError::Empty,
                RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
            }),
            (false, false) => commands.recv().map_err(|_| TryRecvError::Disconnected),
        };
        loop {
            match received {
                Ok(command) => {
                    if self.obey(command)? == Next::Stop {
                        return Ok(Next::Stop);
                    }
                }
                Err(TryRecvError::Empty) => return Ok(Next::Continue),
                Err(TryRecvError::Disconnected) => return Ok(Next::Stop),
            }
            received = commands.try_recv();
        }
    }

    /// Computes a page of prompt and a token, so that rates are known before the first request and its
    /// latency does not include reading the weights from disk.
    fn warm_up(&mut self) -> Result<(), BackendError> {
        let Some(pages) = self.pages.allocate(1) else { return Ok(()) };
        let tokens = vec![0; self.page_tokens.saturating_sub(1).min(self.limits.chunk).max(1)];
        let prompt = SequenceRows { tokens: &tokens, start: 0, pages: &pages, logits: LogitRows::Last };
        self.timed_forward(prompt)?;
        let prompt_seconds = self.timed_forward(prompt)?;
        self.rates.observe(0, tokens.len(), prompt_seconds);
        if tokens.len() < self.page_tokens {
            let token = SequenceRows { tokens: &[0], start: tokens.len(), ..prompt };
            let token_seconds = self.timed_forward(token)?;
            self.rates.observe(1, 0, token_seconds);
        }
        self.pages.release(&pages);
        Ok(())
    }

    fn timed_forward(&mut self, rows: SequenceRows<'_>) -> Result<f64, BackendError> {
        let started = Instant::now();
        self.backend.forward(&[rows], &mut self.logits)?;
        Ok(started.elapsed().as_secs_f64())
    }
}
