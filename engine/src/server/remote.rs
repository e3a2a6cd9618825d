//! Decode's side of a remote prefill: reserve, ask, wait for pages and the first token.
//!
//! At most two prefill instances are tried; then the prompt is computed here, from what landed on. Every wait
//! ends: by a sign of life, by the stall timeout, or with the request itself.

use std::time::Instant;

use shoal_wire::rpc::prefill_event::Event as Sign;
use shoal_wire::rpc::{PageSlot, PrefillDone, PrefillEvent, PrefillRequest, PrefillTarget};
use tokio::time::timeout;
use tonic::{Code, Request, Status, Streaming};

use super::submit::EventReceiver;
use super::validate::Prompt;
use crate::instance::Instance;
use crate::request::{Class, Event, Refusal, SequenceId, Slot};
use crate::transfer::{Expected, Incoming, Landing};

/// Prefill instances asked before the prompt is computed here.
const MAX_ATTEMPTS: usize = 2;

/// Where the prompt was computed, and what moved for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Provenance {
    pub(super) prefilled_by: String,
    pub(super) kv_bytes: u64,
    pub(super) kv_tokens: usize,
    pub(super) attempts: u32,
}

/// Why one prefill instance did not do it.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it refused: {0}")]
    Refused(Status),
    #[error("the call failed: {0}")]
    Call(Status),
    #[error("it gave no sign of life for {0:?}")]
    Silent(std::time::Duration),
    #[error("its stream ended before the first token")]
    Cut,
    #[error("{0}")]
    Transfer(&'static str),
    #[error(
        "it reported {frames} frames and {bytes} bytes; {expected_frames} and {expected_bytes} were asked for"
    )]
    Lied { frames: usize, bytes: u64, expected_frames: usize, expected_bytes: u64 },
    #[error("it answered without a usable first token")]
    FirstToken,
    #[error("no transfer id: {0}")]
    Random(#[from] std::io::Error),
}

impl Fault {
    /// Value of the metric's `outcome` label.
    fn name(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Call(_) => "unreachable",
            Self::Silent(_) => "silent",
            Self::Cut => "cut",
            Self::Transfer(_) => "transfer",
            Self::Lied { .. } | Self::FirstToken => "lied",
            Self::Random(_) => "internal",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Lied { .. } | Self::FirstToken => Class::Invalid,
            Self::Refused(_) => Class::Conflict,
            Self::Random(_) => Class::Fatal,
            _ => Class::Transient,
        }
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::FailedPrecondition | Code::ResourceExhausted | Code::InvalidArgument => {
                Self::Refused(status)
            }
            _ => Self::Call(status),
        }
    }
}

/// Fills the reserved pages of a `GenerateRemote` sequence. `Err` is the event that ended it meanwhile.
pub(super) async fn prefill(
    instance: &Instance,
    prompt: &Prompt,
    targets: &[PrefillTarget],
    id: SequenceId,
    events: &mut EventReceiver,
) -> Result<Provenance, Event> {
    let mut reserved = next_reserved(prompt, events).await?;
    let targets = &targets[..targets.len().min(MAX_ATTEMPTS)];
    for (tried, target) in (1..).zip(targets) {
        let begun = Instant::now();
        let attempt = Attempt { instance, prompt, target, reserved: &reserved };
        let (outcome, landed) = attempt.run(events).await?;
        let fault = match outcome {
            Ok(receipt) => {
                instance.metrics.prefill_attempt("filled");
                instance.prefill_overhead.record(receipt.overhead.as_secs_f32() * 1e3);
                let PrefillDone { first, cached_tokens, payload_bytes, .. } = receipt.done;
                instance.handle.filled(id, first.map(Into::into), cached_tokens as usize);
                let kv_tokens = reserved.tokens - reserved.first_token;
                let prefilled_by = target.instance.clone();
                return Ok(Provenance { prefilled_by, kv_bytes: payload_bytes, kv_tokens, attempts: tried });
            }
            Err(fault) => fault,
        };
        instance.metrics.prefill_attempt(fault.name());
        let (request, peer) = (&prompt.request_id, &target.instance);
        let after = begun.elapsed();
        tracing::warn!(request, peer, attempt = tried, ?after, class = ?fault.class(), %fault, "prefill failed");
        if (tried as usize) < targets.len() {
            instance.handle.fill_failed(id);
            reserved = next_reserved(prompt, events).await?;
        } else {
            return Ok(compute_here(instance, &reserved, id, &landed, tried));
        }
    }
    Ok(compute_here(instance, &reserved, id, &Landed::default(), 0))
}

/// Whole pages that landed without a gap.
#[derive(Debug, Default)]
struct Landed {
    pages: usize,
}

fn compute_here(
    instance: &Instance,
    reserved: &Expected,
    id: SequenceId,
    landed: &Landed,
    attempts: u32,
) -> Provenance {
    let rest = reserved.tokens - reserved.first_token;
    let page = instance.geometry.page_tokens;
    // A page that is not full is computed again; the count stays within whole pages.
    let kv_tokens = (landed.pages * page).min(rest / page * page);
    instance.metrics.local_fallback();
    instance.handle.fill_locally(id, kv_tokens);
    Provenance {
        prefilled_by: instance.identity.instance.clone(),
        kv_bytes: (kv_tokens * instance.geometry.token_bytes()) as u64,
        kv_tokens,
        attempts,
    }
}

async fn next_reserved(prompt: &Prompt, events: &mut EventReceiver) -> Result<Expected, Event> {
    match events.recv().await {
        Some(Event::Reserved { first_token, slots }) => {
            Ok(Expected { first_token, tokens: prompt.tokens.len(), slots })
        }
        other => Err(last(other)),
    }
}

/// A channel that closes without a last event means that the scheduler died.
fn last(event: Option<Event>) -> Event {
    event.unwrap_or_else(|| Event::Refused(Refusal::Stopped("its scheduler ended".to_owned())))
}

/// What a prefill instance delivered.
struct Receipt {
    done: PrefillDone,
    overhead: std::time::Duration,
}

struct Attempt<'a> {
    instance: &'a Instance,
    prompt: &'a Prompt,
    target: &'a PrefillTarget,
    reserved: &'a Expected,
}

impl Attempt<'_> {
    /// The transfer is closed when this returns.
    async fn run(&self, events: &mut EventReceiver) -> Result<(Result<Receipt, Fault>, Landed), Event> {
        let mut incoming = match self.instance.table.open(self.reserved.clone()) {
            Ok(incoming) => incoming,
            Err(error) => return Ok((Err(error.into()), Landed::default())),
        };
        let outcome = tokio::select! {
            outcome = self.fill(&mut incoming) => outcome,
            event = events.recv() => return Err(last(event)),
        };
        let pages = incoming.landed_pages();
        Ok((outcome, Landed { pages }))
    }

    async fn fill(&self, incoming: &mut Incoming) -> Result<Receipt, Fault> {
        let begun = Instant::now();
        let stall = self.instance.stall_timeout;
        let address = &self.target.address;
        let call_error = |error: tonic::transport::Error| Fault::Call(Status::from_error(Box::new(error)));
        let mut client = self.instance.peers.client(address).map_err(call_error)?;
        let request = self.instance.secret.sign(Request::new(self.request(incoming.id())));
        let answer = timeout(stall, client.prefill(request)).await;
        let mut stream = answer.map_err(|_| Fault::Silent(stall))??.into_inner();
        let answered = begun.elapsed();
        let (done, computed) = self.first_token(&mut stream, incoming).await?;
        self.check(&done)?;
        self.all_landed(incoming).await?;
        Ok(Receipt { done, overhead: answered + computed.elapsed() })
    }

    fn request(&self, transfer: u64) -> PrefillRequest {
        let Self { instance, prompt, target: _, reserved } = self;
        let slot = |slot: &Slot| PageSlot { slot: slot.page, generation: slot.generation };
        PrefillRequest {
            request_id: prompt.request_id.clone(),
            tokens: prompt.tokens.clone(),
            generated: prompt.generated as u32,
            sampling: Some(prompt.wire_sampling.clone()),
            tenant_salt: prompt.tenant.clone().into(),
            fingerprint: Some(instance.identity.fingerprint.clone()),
            decode_instance: instance.identity.instance.clone(),
            decode_incarnation: instance.identity.incarnation.clone(),
            data_address: instance.identity.data_address.clone(),
            transfer,
            first_token: reserved.first_token as u32,
            slots: reserved.slots.iter().map(slot).collect(),
            lease_ms: instance.stall_timeout.as_millis() as u32,
        }
    }

    /// Waits for `PrefillDone`, and notes when the last prompt token was computed. Each message and each
    /// page is a sign of life.
    async fn first_token(
        &self,
        stream: &mut Streaming<PrefillEvent>,
        incoming: &mut Incoming,
    ) -> Result<(PrefillDone, Instant), Fault> {
        let stall = self.instance.stall_timeout;
        let mut computed = None;
        loop {
            let next = async {
                tokio::select! {
                    message = stream.message() => message.map(Some),
                    _ = incoming.changed() => Ok(None),
                }
            };
            let message = timeout(stall, next).await.map_err(|_| Fault::Silent(stall))??;
            failed(&incoming.landing())?;
            let Some(message) = message else { continue };
            match message.ok_or(Fault::Cut)?.event {
                Some(Sign::Progress(progress)) if progress.tokens_done as usize >= self.reserved.tokens => {
                    computed = Some(Instant::now());
                }
                Some(Sign::Done(done)) => return Ok((done, computed.unwrap_or_else(Instant::now))),
                Some(Sign::Progress(_) | Sign::Heartbeat(_)) | None => {}
            }
        }
    }

    fn check(&self, done: &PrefillDone) -> Result<(), Fault> {
        let expected_frames = self.reserved.slots.len();
        let tokens = self.reserved.tokens - self.reserved.first_token;
        let expected_bytes = (tokens * self.instance.geometry.token_bytes()) as u64;
        let (frames, bytes) = (done.frames as usize, done.payload_bytes);
        if (frames, bytes) != (expected_frames, expected_bytes) {
            return Err(Fault::Lied { frames, bytes, expected_frames, expected_bytes });
        }
        let vocabulary = self.instance.identity.vocabulary;
        let usable = match &done.first {
            Some(token) => !done.grammar_end && (token.id as usize) < vocabulary,
            None => done.grammar_end && self.prompt.wire_sampling.grammar.is_some(),
        };
        if usable { Ok(()) } else { Err(Fault::FirstToken) }
    }

    async fn all_landed(&self, incoming: &mut Incoming) -> Result<(), Fault> {
        let stall = self.instance.stall_timeout;
        loop {
            let landing = incoming.landing();
            failed(&landing)?;
            if landing.pages == self.reserved.slots.len() {
                return Ok(());
            }
            timeout(stall, incoming.changed()).await.map_err(|_| Fault::Silent(stall))?;
        }
    }
}

fn failed(landing: &Landing) -> Result<(), Fault> {
    landing.failed.map_or(Ok(()), |why| Err(Fault::Transfer(why)))
}
