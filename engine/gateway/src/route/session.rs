//! One request, from its first attempt to its last event, over as many instances as it takes.
//!
//! The session keeps the tokens it has handed on. When an instance is lost the next one gets prompt and
//! tokens and goes on behind them; with several choices it starts again, and what was handed on before is
//! compared and dropped. Either way its reader sees neither a gap nor a duplicate.

mod connect;
mod replay;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use shoal_wire::rpc::generate_event::Event;
use shoal_wire::rpc::{FinishReason, Finished, GenerateEvent, Sampling, Started, Token, Tokens};
use tokio::time::timeout;

use super::attempt::Attempt;
use super::error::{SessionError, Verdict};
use super::{Placement, Router};
use connect::Refused;
use replay::{Cause, credit_prefill};

/// How often a waiting request looks again for what no event announces: a breaker's pause that ended, an
/// instance that resumed, a queue with room.
const RECHECK: std::time::Duration = std::time::Duration::from_millis(100);
/// Instances that may die under one request before it is the suspect.
const DEATHS: u32 = 2;

/// What to generate.
#[derive(Debug, Clone)]
pub struct Job {
    /// At most 48 bytes; every attempt appends its number.
    pub id: String,
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    pub choices: u32,
    pub salt: Bytes,
    pub deadline: Instant,
    /// Overrides the gateway's policy.
    pub placement: Option<Placement>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Once, before the first token: prefill is done.
    Started,
    Tokens {
        choice: u32,
        tokens: Vec<Token>,
    },
    Finished {
        choice: u32,
        reason: FinishReason,
        stop_token: u32,
    },
}

/// Where and how the request ran.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    pub prompt_tokens: u32,
    pub cached_tokens: u32,
    pub prefill_instance: String,
    pub decode_instance: String,
    pub kv_bytes: u64,
    pub kv_tokens: u32,
    pub prefill_attempts: u32,
    pub place: &'static str,
    pub reason: &'static str,
    pub replays: u32,
}

#[derive(Debug)]
pub struct Session {
    router: Arc<Router>,
    job: Job,
    choices: Vec<Progress>,
    open_choices: usize,
    attempt: Option<Attempt>,
    attempts: u32,
    deaths: u32,
    /// Some instance has worked on it: from now on losing one is a replay, not a retry.
    accepted: bool,
    started: bool,
    refused: Vec<Refused>,
    queued: Option<Output>,
    summary: Summary,
}

/// What a stream yields: an event, its end, or how it broke.
type Heard = Result<Option<GenerateEvent>, tonic::Status>;

#[derive(Debug, Default, Clone)]
struct Progress {
    emitted: Vec<u32>,
    /// Tokens seen of the present attempt, those it was given included.
    position: usize,
    finished: bool,
}

impl Session {
    pub fn new(router: Arc<Router>, job: Job) -> Self {
        router.budget.request_arrived();
        let choices = vec![Progress::default(); job.choices.max(1) as usize];
        Self {
            router,
            open_choices: choices.len(),
            choices,
            job,
            attempt: None,
            attempts: 0,
            deaths: 0,
            accepted: false,
            started: false,
            refused: vec![],
            queued: None,
            summary: Summary::default(),
        }
    }

    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    pub fn wants_logprobs(&self) -> bool {
        self.job.sampling.logprobs.is_some()
    }

    /// Ends one choice: its reader has seen enough. With the last one the work stops.
    pub fn close(&mut self, choice: u32) {
        if let Some(progress) = self.choices.get_mut(choice as usize)
            && !progress.finished
        {
            progress.finished = true;
            self.open_choices -= 1;
        }
        if self.open_choices == 0 {
            self.attempt = None;
        }
    }

    /// The next output; none after the last choice finished. After an error the session is over.
    pub async fn next(&mut self) -> Option<Result<Output, SessionError>> {
        if let Some(output) = self.queued.take() {
            return Some(Ok(output));
        }
        if self.open_choices == 0 {
            return None;
        }
        let result = self.advance().await;
        if result.is_err() {
            self.open_choices = 0;
            self.attempt = None;
        }
        Some(result)
    }

    async fn advance(&mut self) -> Result<Output, SessionError> {
        loop {
            if let Some(output) = self.queued.take() {
                return Ok(output);
            }
            let Some(attempt) = &mut self.attempt else {
                self.attempt = Some(self.connect().await?);
                continue;
            };
            let left = self.job.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(SessionError::Timeout);
            }
            let stall = self.router.policy.stall;
            let heard = match timeout(stall.min(left), attempt.event()).await {
                Ok(heard) => heard,
                Err(_) if left <= stall => return Err(SessionError::Timeout),
                Err(_) => match self.wait_out_stall().await? {
                    Some(heard) => heard,
                    None => continue,
                },
            };
            if let Some(output) = self.hear(heard)? {
                return Ok(output);
            }
        }
    }

    fn hear(&mut self, heard: Heard) -> Result<Option<Output>, SessionError> {
        match heard {
            Ok(Some(GenerateEvent { event: Some(event) })) => self.absorb(event),
            Ok(Some(GenerateEvent { event: None })) => Ok(None),
            // An orderly end without Finished: the process is leaving.
            Ok(None) => self.lose(Cause::Drained).map(|()| None),
            Err(status) => self.broke(&status).map(|()| None),
        }
    }

    fn absorb(&mut self, event: Event) -> Result<Option<Output>, SessionError> {
        if let Some(attempt) = &mut self.attempt
            && !attempt.accepted
        {
            attempt.accepted = true;
            attempt.instance().breaker.succeeded();
            self.accepted = true;
            self.refused.clear();
        }
        match event {
            Event::Heartbeat(_) => Ok(None),
            Event::Started(started) => Ok(self.start(&started)),
            Event::Tokens(Tokens { choice, tokens }) => {
                let fresh = self.fresh_tokens(choice, tokens)?;
                Ok((!fresh.is_empty()).then_some(Output::Tokens { choice, tokens: fresh }))
            }
            Event::Finished(finished) => self.finish(finished),
        }
    }

    fn start(&mut self, started: &Started) -> Option<Output> {
        if let Some(attempt) = &self.attempt {
            credit_prefill(attempt, started);
        }
        if std::mem::replace(&mut self.started, true) {
            return None;
        }
        let summary = &mut self.summary;
        summary.prompt_tokens = self.job.prompt.len() as u32;
        summary.cached_tokens = started.cached_tokens.min(summary.prompt_tokens);
        summary.prefill_instance.clone_from(&started.prefilled_by);
        summary.kv_bytes = started.kv_bytes_received;
        summary.kv_tokens = started.kv_tokens_received;
        summary.prefill_attempts = started.prefill_attempts;
        self.router.metrics.kv_bytes.inc_by(started.kv_bytes_received);
        Some(Output::Started)
    }

    fn finish(&mut self, finished: Finished) -> Result<Option<Output>, SessionError> {
        let (choice, reason) = (finished.choice, finished.reason());
        if reason == FinishReason::Aborted {
            return if Instant::now() >= self.job.deadline {
                Err(SessionError::Timeout)
            } else {
                self.lose(Cause::Drained).map(|()| None)
            };
        }
        let Some(progress) = self.choices.get_mut(choice as usize) else { return Ok(None) };
        if std::mem::replace(&mut progress.finished, true) {
            return Ok(None);
        }
        self.open_choices -= 1;
        if self.open_choices == 0
            && let Some(mut attempt) = self.attempt.take()
        {
            attempt.done = true;
        }
        Ok(Some(Output::Finished { choice, reason, stop_token: finished.stop_token }))
    }

    /// The call ended with a status.
    fn broke(&mut self, status: &tonic::Status) -> Result<(), SessionError> {
        let accepted = self.attempt.as_ref().is_some_and(|attempt| attempt.accepted);
        match Verdict::of(status) {
            Verdict::Final(error) => Err(error),
            Verdict::Lost(_) => self.lose(Cause::Lost),
            verdict if !accepted => self.turned_away(verdict),
            Verdict::QueueFull | Verdict::Moved => self.lose(Cause::Drained),
            Verdict::Failed(_) => self.lose(Cause::Lost),
        }
    }
}
