//! Finding an instance that takes a request, and what each refusal means for the next try.

use std::sync::Arc;
use std::time::Instant;

use shoal_wire::rpc::GenerateRequest;
use tokio::time::{sleep, sleep_until, timeout};

use super::{RECHECK, Session};
use crate::fleet::Instance;
use crate::route::Chosen;
use crate::route::attempt::Attempt;
use crate::route::error::{SessionError, Verdict};

#[derive(Debug)]
pub(super) struct Refused {
    pub(super) incarnation: String,
    pub(super) why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    QueueFull,
    Breaker,
    Moved,
    Failed,
}

impl Session {
    /// Finds an instance that takes the request.
    pub(super) async fn connect(&mut self) -> Result<Attempt, SessionError> {
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
    pub(super) fn turned_away(&mut self, verdict: Verdict) -> Result<(), SessionError> {
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

    pub(super) fn patience(&self) -> Instant {
        let policy = &self.router.policy;
        let wait = if self.accepted { policy.failover_wait } else { policy.arrival_wait };
        (Instant::now() + wait).min(self.job.deadline)
    }

    pub(super) fn out_of_patience(&self) -> SessionError {
        if Instant::now() >= self.job.deadline {
            SessionError::Timeout
        } else if self.accepted {
            SessionError::NotTakenOver
        } else {
            SessionError::NoInstance
        }
    }
}
