//! What carries a request over the loss of an instance: tokens handed on, and the call that continues
//! behind them.

use std::time::Instant;

use shoal_wire::rpc::{FinishReason, GenerateRequest, Started, Token};
use tokio::time::{sleep, sleep_until};

use super::connect::{Refused, Why};
use super::{DEATHS, Heard, Output, RECHECK, Session};
use crate::route::attempt::Attempt;
use crate::route::error::SessionError;

/// Why a request moves to another instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Lost,
    Stalled,
    Drained,
}

impl Session {
    /// Tokens not handed on before. Those that were must be the same again.
    pub(super) fn fresh_tokens(
        &mut self,
        choice: u32,
        mut tokens: Vec<Token>,
    ) -> Result<Vec<Token>, SessionError> {
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

    /// Gives up the present attempt, which had been accepted, and prepares the next.
    pub(super) fn lose(&mut self, cause: Cause) -> Result<(), SessionError> {
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
    pub(super) async fn wait_out_stall(&mut self) -> Result<Option<Heard>, SessionError> {
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

    /// The call for the next attempt. One choice continues behind its tokens; several start again.
    pub(super) fn request(&mut self) -> GenerateRequest {
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
pub(super) fn credit_prefill(attempt: &Attempt, started: &Started) {
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
