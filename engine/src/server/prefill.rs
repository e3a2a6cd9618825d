//! One Prefill call: computes a prompt for a decode instance and pushes its pages there.
//!
//! Each full page is sent as soon as its chunk is computed, while the next chunk computes; the last page
//! follows the first token. The sequence's pages stay until everything was sent or the lease ran out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_wire::rpc::prefill_event::Event as Sign;
use shoal_wire::rpc::{Heartbeat, PrefillDone, PrefillEvent, PrefillProgress};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::refusal::{aborted, status};
use super::replies::{Gone, Replies};
use super::running::Running;
use super::submit::{EventReceiver, submit};
use super::validate::Prefill;
use super::{Events, grammars};
use crate::grammar::Matcher;
use crate::instance::Instance;
use crate::request::{Event, Finish, Purpose, SampledToken, Slot};
use crate::transfer::{Outgoing, PageJob};

/// Decode gives a silent prefill up after its stall timeout, by default 3 s.
const HEARTBEAT: Duration = Duration::from_millis(400);

enum Stop {
    Gone,
    Failed(Box<Status>),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Failed(Box::new(status))
    }
}

pub(super) async fn start(instance: Arc<Instance>, request: Prefill) -> Result<Events<PrefillEvent>, Status> {
    let grammar = grammars::compile(&instance, &request.prompt).await?;
    let (mut replies, stream) = Replies::new(HEARTBEAT, || message(Sign::Heartbeat(Heartbeat {})));
    tokio::spawn(async move {
        let begun = Instant::now();
        let outcome = match Box::pin(run(&instance, &request, grammar, &mut replies)).await {
            Ok(()) => "finished",
            Err(Stop::Gone) => "client_gone",
            Err(Stop::Failed(status)) => {
                let (request, peer) = (&request.prompt.request_id, &request.decode_instance);
                tracing::debug!(request, peer, code = ?status.code(), message = status.message(), "prefill ended");
                replies.fail(*status).await;
                "refused"
            }
        };
        instance.metrics.request("prefill", outcome, begun.elapsed());
    });
    Ok(stream)
}

fn message(sign: Sign) -> PrefillEvent {
    PrefillEvent { event: Some(sign) }
}

async fn run(
    instance: &Instance,
    request: &Prefill,
    grammar: Option<Matcher>,
    replies: &mut Replies<PrefillEvent>,
) -> Result<(), Stop> {
    let (mut running, mut events) = submit(instance, &request.prompt, Purpose::Prefill, 0, grammar, None);
    let mut pages = Pages::new(instance, request);
    let mut cached_tokens = 0;
    let first = loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Computed { done, pages: computed }) => {
                    pages.push_full(done, computed)?;
                    replies.send(message(Sign::Progress(PrefillProgress { tokens_done: done as u32 }))).await?;
                }
                Some(Event::Admitted { cached_tokens: cached }) => cached_tokens = cached,
                other => break first_token(other, &mut running)?,
            },
            state = pages.outgoing.changed() => send_failed(state.failed)?,
            gone = replies.keep_alive() => return Err(gone.into()),
        }
    };
    pages.push_last()?;
    pages.all_sent(request.lease, &mut events, replies).await?;
    let sent = pages.outgoing.state();
    let done = PrefillDone {
        grammar_end: first.is_none(),
        first: first.map(Into::into),
        cached_tokens: cached_tokens as u32,
        frames: sent.frames,
        payload_bytes: sent.payload_bytes,
    };
    running.release();
    replies.send(message(Sign::Done(done))).await?;
    Ok(())
}

/// The event that ends the computation; `None` is a satisfied grammar.
fn first_token(event: Option<Event>, running: &mut Running) -> Result<Option<SampledToken>, Stop> {
    match event {
        Some(Event::Token(token)) => Ok(Some(token)),
        Some(Event::Finished(Finish::GrammarEnd)) => Ok(None),
        Some(Event::Refused(refusal)) => {
            running.ended();
            Err(Status::from(refusal).into())
        }
        Some(Event::Finished(_)) => {
            running.ended();
            Err(aborted().into())
        }
        _ => Err(status(Code::Unavailable, "stopped", "the scheduler stopped").into()),
    }
}

fn send_failed(failed: Option<String>) -> Result<(), Stop> {
    match failed {
        None => Ok(()),
        Some(why) => {
            let message = format!("the pages could not be sent: {why}");
            Err(status(Code::Unavailable, "transfer", message).into())
        }
    }
}

/// The computed pages of one prompt on their way to the decode instance.
struct Pages<'a> {
    instance: &'a Instance,
    request: &'a Prefill,
    outgoing: Outgoing,
    /// Pages sent so far, counted from the first wanted one.
    queued: usize,
    /// Slots of the whole sequence, as last reported.
    slots: Vec<Slot>,
}

impl<'a> Pages<'a> {
    fn new(instance: &'a Instance, request: &'a Prefill) -> Self {
        let outgoing = instance.outbox.open(&request.data_address, request.transfer);
        Self { instance, request, outgoing, queued: 0, slots: Vec::new() }
    }

    /// Tokens `..done` are computed: sends the pages that became full.
    fn push_full(&mut self, done: usize, slots: Vec<Slot>) -> Result<(), Status> {
        self.slots = slots;
        let page = self.instance.geometry.page_tokens;
        let full = (done / page).saturating_sub(self.request.wanted.first_token / page);
        while self.queued < full.min(self.request.wanted.slots.len()) {
            self.push(page)?;
        }
        Ok(())
    }

    /// The last page is final: sends what is left, which is at most one page that is not full.
    fn push_last(&mut self) -> Result<(), Status> {
        let page = self.instance.geometry.page_tokens;
        while self.queued < self.request.wanted.slots.len() {
            let start = self.request.wanted.first_token + self.queued * page;
            self.push((self.request.wanted.tokens - start).min(page))?;
        }
        Ok(())
    }

    fn push(&mut self, tokens: usize) -> Result<(), Status> {
        let first_token = self.request.wanted.first_token + self.queued * self.instance.geometry.page_tokens;
        let lost = || status(Code::Aborted, "aborted", "the computed pages were taken back");
        let source = *self.slots.get(first_token / self.instance.geometry.page_tokens).ok_or_else(lost)?;
        let page = self.instance.arena.read(source.page).ok_or_else(lost)?;
        // Asked after borrowing; from here on the page stays what it is.
        if !self.instance.handle.generations().is_current(source) {
            return Err(lost());
        }
        let slot = self.request.wanted.slots[self.queued];
        self.outgoing.send(PageJob { page, slot, first_token, tokens });
        self.queued += 1;
        Ok(())
    }

    /// Waits until every frame was handed to the kernel. Each frame renews the lease.
    async fn all_sent(
        &mut self,
        lease: Duration,
        events: &mut EventReceiver,
        replies: &mut Replies<PrefillEvent>,
    ) -> Result<(), Stop> {
        loop {
            send_failed(self.outgoing.state().failed)?;
            if self.outgoing.is_sent() {
                return Ok(());
            }
            tokio::select! {
                sent = timeout(lease, self.outgoing.changed()) => {
                    sent.map_err(|_| status(Code::DeadlineExceeded, "transfer", "no page could be sent within the lease"))?;
                }
                Some(Event::Finished(Finish::Aborted)) = events.recv() => return Err(aborted().into()),
                gone = replies.keep_alive() => return Err(gone.into()),
            }
        }
    }
}
