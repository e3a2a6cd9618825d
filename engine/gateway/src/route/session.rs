//! One request, from its first attempt to its last event, over as many instances as it takes.
//!
//! The session keeps the tokens it has handed on. When an instance is lost the next one gets prompt and
//! tokens and goes on behind them; with several choices it starts again, and what was handed on before is
//! compared and dropped. Either way its reader sees neither a gap nor a duplicate.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use shoal_wire::rpc::generate_event::Event;
use shoal_wire::rpc::{
    FinishReason, Finished, GenerateEvent, GenerateRequest, Sampling, Started, Token, Tokens,
};
use tokio::time::{sleep, sleep_until, timeout};

use super::attempt::Attempt;
use super::error::{SessionError, Verdict};
use super::{Chosen, Placement, Router};
use crate::fleet::Instance;

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

#[derive(Debug, Default, Clone)]
struct Progress {
    emitted: Vec<u32>,
    /// Tokens seen of the present attempt, those it was given included.
    position: usize,
    finished: bool,
}

#[derive(Debug)]
struct Refused {
    incarnation: String,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    QueueFull,
    Breaker,
    Moved,
    Failed,
}

/// Why a request moves to another instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Lost,
    Stalled,
    Drained,
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

    fn hear(
        &mut self,
        heard: Result<Option<GenerateEvent>, tonic::Status>,
    ) -> Result<Option<Output>, SessionError> {
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

    /// Tokens not handed on before. Those that were must be the same again.
    fn fresh_tokens(&mut self, choice: u32, mut tokens: Vec<Token>) -> Result<Vec<Token>, SessionError> {
        let Some(progress) = self.choices.get_mut(choice as usize) else {
            return Err(SessionError::Engine(format!(
                "it sent tokens of choice {choice}, which was not asked for"
            )));
        };
        if progress.finished {
            return Ok(vec![]);
        }
        let repeated = progress.emitted.len().saturating_sub(progress.position).min(tokens.len());
        let expected = &progress.emitted[progress.position..progress.position + repeated];
        if tokens[..repeated].iter().zip(expected).any(|(token, &before)| token.id != before) {
            return Err(SessionError::Diverged);
        }
        progress.position += tokens.len();
        tokens.drain(..repeated);
        progress.emitted.extend(tokens.iter().map(|token| token.id));
        Ok(tokens)
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

    /// Gives up the present attempt, which had been accepted, and prepares the next.
    fn lose(&mut self, cause: Cause) -> Result<(), SessionError> {
        let Some(attempt) = self.attempt.take() else { return Ok(()) };
        let label = match cause {
            Cause::Lost => "lost",
            Cause::Stalled => "stalled",
            Cause::Drained => "drained",
        };
        tracing::warn!(
            request = self.job.id,
            instance = attempt.instance().name(),
            cause = label,
            "a request moves to another instance"
        );
        self.accepted = true;
        self.router.metrics.replays.with_label_values(&[label]).inc();
        self.summary.replays += 1;
        self.refused.push(Refused { incarnation: attempt.incarnation().to_owned(), why: Why::Failed });
        if cause == Cause::Lost {
            attempt.instance().breaker.failed(Instant::now());
            self.deaths += 1;
            if self.deaths >= DEATHS {
                self.router.metrics.poisoned.inc();
                return Err(SessionError::Poisoned);
            }
        }
        self.queued = self.already_complete();
        Ok(())
    }

    /// The last token was handed on, only its Finished was lost.
    fn already_complete(&mut self) -> Option<Output> {
        let [only] = self.choices.as_mut_slice() else { return None };
        if only.finished || only.emitted.len() < self.job.sampling.max_tokens as usize {
            return None;
        }
        only.finished = true;
        self.open_choices = 0;
        Some(Output::Finished { choice: 0, reason: FinishReason::Length, stop_token: 0 })
    }

    /// Nothing arrived for a while. Keeps the stream, which may resume, until somebody else can take over.
    /// None: somebody can, and the stream was given up.
    async fn wait_out_stall(
        &mut self,
    ) -> Result<Option<Result<Option<GenerateEvent>, tonic::Status>>, SessionError> {
        let until = self.patience();
        let Some(mut attempt) = self.attempt.take() else { return Ok(None) };
        let others = [attempt.incarnation().to_owned()];
        loop {
            let mut changes = self.router.fleet.changes();
            if self.router.can_choose(&others) {
                self.attempt = Some(attempt);
                self.lose(Cause::Stalled)?;
                return Ok(None);
            }
            tokio::select! {
                biased;
                heard = attempt.event() => {
                    self.attempt = Some(attempt);
                    return Ok(Some(heard));
                }
                _ = changes.changed() => {}
                () = sleep(RECHECK) => {}
                () = sleep_until(until.into()) => return Err(self.out_of_patience()),
            }
        }
    }

    /// Finds an instance that takes the request.
    async fn connect(&mut self) -> Result<Attempt, SessionError> {
        let until = self.patience();
        loop {
            let mut changes = self.router.fleet.changes();
            let excluded: Vec<String> = self.refused.iter().map(|r| r.incarnation.clone()).collect();
            let request = self.request();
            let Some(chosen) = self.router.choose(&request, self.job.placement, &excluded) else {
                if let Some(error) = self.hopeless() {
                    return Err(error);
                }
                tokio::select! {
                    _ = changes.changed() => {}
                    () = sleep(RECHECK) => {}
                    () = sleep_until(until.into()) => return Err(self.out_of_patience()),
                }
                self.refused.clear();
                continue;
            };
            if !chosen.instance.breaker.try_call(Instant::now()) {
                self.refused.push(Refused { incarnation: chosen.incarnation, why: Why::Breaker });
                continue;
            }
            if let Some(attempt) = self.open(chosen, request).await? {
                return Ok(attempt);
            }
        }
    }

    async fn open(
        &mut self,
        chosen: Chosen,
        mut request: GenerateRequest,
    ) -> Result<Option<Attempt>, SessionError> {
        request.prefill.clone_from(&chosen.targets);
        self.note(&chosen);
        let (incarnation, instance) = (chosen.incarnation.clone(), Arc::clone(&chosen.instance));
        self.attempts += 1;
        let patience =
            self.router.policy.stall.min(self.job.deadline.saturating_duration_since(Instant::now()));
        let verdict = match timeout(patience, Attempt::open(chosen, request)).await {
            Ok(Ok(attempt)) => return Ok(Some(attempt)),
            Ok(Err((_, status))) => match Verdict::of(&status) {
                // A death that the fleet has seen too cannot feed a storm: nobody picks it again.
                Verdict::Lost(_) if self.is_gone(&instance, &incarnation).await => Verdict::Moved,
                verdict => verdict,
            },
            Err(_) => Verdict::Lost("no answer in time".to_owned()),
        };
        self.refuse(incarnation, &instance, verdict)?;
        Ok(None)
    }

    /// True if the fleet, too, lost sight of that process by now or within a moment.
    async fn is_gone(&self, instance: &Instance, incarnation: &str) -> bool {
        let mut changes = self.router.fleet.changes();
        let gone = || instance.live().is_none_or(|live| live.hello.incarnation != incarnation);
        if !gone() {
            let _ = timeout(RECHECK, changes.changed()).await;
        }
        gone()
    }

    /// Puts the choice into summary and metrics.
    fn note(&mut self, chosen: &Chosen) {
        let decision = &chosen.decision;
        tracing::debug!(
            request = self.job.id,
            decode = chosen.instance.name(),
            place = decision.place(),
            reason = decision.reason.as_str(),
            here_ms = decision.here_ms,
            remote_ms = decision.remote_ms,
            "routed"
        );
        self.router.metrics.decisions.with_label_values(&[decision.place(), decision.reason.as_str()]).inc();
        if !self.started {
            self.summary.place = decision.place();
            self.summary.reason = decision.reason.as_str();
        }
        chosen.instance.name().clone_into(&mut self.summary.decode_instance);
    }

    /// The present attempt was answered with a refusal before any event.
    fn turned_away(&mut self, verdict: Verdict) -> Result<(), SessionError> {
        let Some(mut attempt) = self.attempt.take() else { return Ok(()) };
        attempt.done = true;
        let instance = Arc::clone(attempt.instance());
        self.refuse(attempt.incarnation().to_owned(), &instance, verdict)
    }

    /// Remembers who did not take the request. Refusals are re-routes; failures cost retry budget.
    fn refuse(
        &mut self,
        incarnation: String,
        instance: &Instance,
        verdict: Verdict,
    ) -> Result<(), SessionError> {
        let (why, label) = match verdict {
            Verdict::Final(error) => return Err(error),
            Verdict::QueueFull => (Why::QueueFull, "queue_full"),
            Verdict::Moved => (Why::Moved, "moved"),
            Verdict::Lost(_) | Verdict::Failed(_) => (Why::Failed, "failed"),
        };
        self.refused.push(Refused { incarnation, why });
        if why == Why::Failed {
            let now = Instant::now();
            instance.breaker.failed(now);
            if !self.accepted && !self.router.budget.try_retry(now) {
                self.router.metrics.retries_refused.inc();
                return Err(SessionError::BudgetSpent);
            }
        } else {
            instance.breaker.succeeded();
        }
        self.router.metrics.retries.with_label_values(&[label]).inc();
        Ok(())
    }

    /// Why waiting for somebody would be in vain. A request that was accepted before always waits.
    fn hopeless(&self) -> Option<SessionError> {
        if self.accepted {
            return None;
        }
        if self.refused.iter().any(|refused| refused.why == Why::QueueFull) {
            return Some(SessionError::QueueFull);
        }
        if self.router.is_broken() {
            return Some(SessionError::NoInstance);
        }
        let fleet = &self.router.fleet;
        let expected = fleet.has_decoder() || fleet.expects_decoder(self.router.policy.arrival_wait);
        (!expected).then_some(SessionError::NoInstance)
    }

    fn patience(&self) -> Instant {
        let policy = &self.router.policy;
        let wait = if self.accepted { policy.failover_wait } else { policy.arrival_wait };
        (Instant::now() + wait).min(self.job.deadline)
    }

    fn out_of_patience(&self) -> SessionError {
        if Instant::now() >= self.job.deadline {
            SessionError::Timeout
        } else if self.accepted {
            SessionError::NotTakenOver
        } else {
            SessionError::NoInstance
        }
    }

    /// The call for the next attempt. One choice continues behind its tokens; several start again.
    fn request(&mut self) -> GenerateRequest {
        let mut tokens = self.job.prompt.clone();
        let mut generated = 0;
        match self.choices.as_mut_slice() {
            [only] => {
                tokens.extend_from_slice(&only.emitted);
                generated = only.emitted.len();
                only.position = generated;
            }
            several => several.iter_mut().for_each(|progress| progress.position = 0),
        }
        let left = self.job.deadline.saturating_duration_since(Instant::now());
        GenerateRequest {
            request_id: format!("{}.{}", self.job.id, self.attempts),
            tokens,
            generated: generated as u32,
            sampling: Some(self.job.sampling.clone()),
            choices: self.choices.len() as u32,
            tenant_salt: self.job.salt.clone(),
            deadline_ms: left.as_millis().max(1) as u64,
            prefill: vec![],
        }
    }
}

/// Feeds the breakers of prefill instances, which only the decode instance calls.
fn credit_prefill(attempt: &Attempt, started: &Started) {
    let mut failures = started.prefill_attempts.saturating_sub(1);
    for instance in &attempt.chosen.prefill {
        if instance.name() == started.prefilled_by {
            instance.prefill_breaker.succeeded();
            return;
        }
        if failures > 0 {
            instance.prefill_breaker.failed(Instant::now());
            failures -= 1;
        }
    }
}
