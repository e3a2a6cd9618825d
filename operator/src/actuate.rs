//! The only caller of engines: asks them for their state, and sees to it that their role and draining are
//! what their pods' marks say.
//!
//! An engine's answer is an observation, not a result: a call that is lost is made again on the next look,
//! because what the engine says then still differs from the marks. Every call carries the epoch of the
//! lease, so that an engine refuses a leader that was replaced.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use parking_lot::Mutex;
use shoal_plan::Role;
use shoal_wire::{
    FleetSecret,
    rpc::{self, DrainRequest, EngineState, GetStateRequest, SetRoleRequest, engine_client::EngineClient},
    tls::{self, Identity},
};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::metrics::Metrics;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// An answer as young as this serves another look, so that a burst of events does not become one of calls.
const FRESH: Duration = Duration::from_millis(250);
/// Without an answer for this long an engine is unresponsive.
pub const SILENCE: Duration = Duration::from_secs(10);

/// An engine that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub pod: String,
    pub uid: String,
    /// `ip:port` of its gRPC.
    pub address: String,
    /// Within mutual TLS, and never without; the other way round for one that was started without.
    pub tls: bool,
}

/// What calls of one fleet's engines carry.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    pub secret: &'a FleetSecret,
    /// None until the fleet has certificates.
    pub identity: Option<&'a Arc<Identity>>,
}

/// What an engine said last, and for how long it has said nothing since.
#[derive(Debug, Clone)]
pub struct Answer {
    pub silence: Duration,
    pub said: Option<EngineState>,
}

/// What is to be set right at one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correction {
    SetRole(Role),
    Drain,
    Undrain,
}

impl Correction {
    fn call(self) -> &'static str {
        match self {
            Self::SetRole(_) => "set_role",
            Self::Drain => "drain",
            Self::Undrain => "undrain",
        }
    }
}

/// What differs between the marks of a pod and the word of its engine; a draining engine keeps its role.
pub fn correction(role: Role, draining: bool, said: &EngineState) -> Option<Correction> {
    match (draining, said.draining) {
        (true, false) => Some(Correction::Drain),
        (false, true) => Some(Correction::Undrain),
        (false, false) if !crate::observe::has_role(said, role) => Some(Correction::SetRole(role)),
        _ => None,
    }
}

/// One engine process's connection, by UID of its pod.
#[derive(Debug, Clone)]
struct Known {
    channel: Channel,
    since: Instant,
    last: Option<(Instant, EngineState)>,
}

/// Connections to engines, and what each said last. All of it is learned again by asking.
#[derive(Debug)]
pub struct Engines {
    known: Mutex<HashMap<String, Known>>,
    metrics: Arc<Metrics>,
}

impl Engines {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { known: Mutex::default(), metrics }
    }

    /// Asks all of them at once; by pod name. Takes no longer than one silent engine does.
    pub async fn ask(&self, targets: &[Target], pass: Pass<'_>) -> HashMap<String, Answer> {
        let asked = targets.iter().map(|target| async { (target.pod.clone(), self.one(target, pass).await) });
        join_all(asked).await.into_iter().filter_map(|(pod, answer)| Some((pod, answer?))).collect()
    }

    async fn one(&self, target: &Target, pass: Pass<'_>) -> Option<Answer> {
        let known = self.connection(target, pass)?;
        if known.last.as_ref().is_none_or(|(at, _)| at.elapsed() >= FRESH) {
            let request = pass.secret.sign(Request::new(GetStateRequest {}));
            let call = async |mut client: EngineClient<Channel>| client.get_state(request).await;
            // Another process may have the address of a pod that is gone.
            let said = self.call("get_state", call(EngineClient::new(known.channel.clone()))).await;
            if let Some(said) = said.ok().filter(|said| said.instance == target.pod)
                && let Some(known) = self.known.lock().get_mut(&target.uid)
            {
                known.last = Some((Instant::now(), said));
            }
        }
        let latest = self.known.lock().get(&target.uid).cloned()?;
        let heard = latest.last.as_ref().map_or(latest.since, |(at, _)| *at);
        Some(Answer { silence: heard.elapsed(), said: latest.last.map(|(_, said)| said) })
    }

    /// Sets one thing right, under this epoch; what the engine says afterwards is what counts.
    pub async fn correct(
        &self,
        target: &Target,
        pass: Pass<'_>,
        correction: Correction,
        epoch: u64,
    ) -> Result<(), Status> {
        let Some(known) = self.connection(target, pass) else { return Ok(()) };
        let mut client = EngineClient::new(known.channel);
        match correction {
            Correction::SetRole(role) => {
                let role = i32::from(match role {
                    Role::Prefill => rpc::Role::Prefill,
                    Role::Decode => rpc::Role::Decode,
                });
                let request = pass.secret.sign(Request::new(SetRoleRequest { role, epoch }));
                self.call(correction.call(), client.set_role(request)).await.map(drop)?;
            }
            Correction::Drain | Correction::Undrain => {
                let undo = correction == Correction::Undrain;
                let request = pass.secret.sign(Request::new(DrainRequest { undo, epoch }));
                self.call(correction.call(), client.drain(request)).await.map(drop)?;
            }
        }
        // The next look asks anew.
        if let Some(known) = self.known.lock().get_mut(&target.uid)
            && let Some((at, _)) = &mut known.last
        {
            *at = at.checked_sub(FRESH).unwrap_or(*at);
        }
        Ok(())
    }

    /// Forgets every pod that is gone.
    pub fn keep(&self, exists: &HashSet<String>) {
        self.known.lock().retain(|uid, _| exists.contains(uid));
    }

    /// None for an engine within TLS while the fleet has no certificates.
    fn connection(&self, target: &Target, pass: Pass<'_>) -> Option<Known> {
        if let Some(known) = self.known.lock().get(&target.uid) {
            return Some(known.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", target.address)).ok()?;
        let identity = match target.tls {
            true => Some(pass.identity?),
            false => None,
        };
        let channel = tls::channel(&endpoint.connect_timeout(DEADLINE), identity);
        let known = Known { channel, since: Instant::now(), last: None };
        self.known.lock().insert(target.uid.clone(), known.clone());
        Some(known)
    }

    #[tracing::instrument(level = "debug", skip(self, sent))]
    async fn call<T>(
        &self,
        call: &'static str,
        sent: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        let answer = tokio::time::timeout(DEADLINE, sent).await;
        let (outcome, answer) = match answer {
            Ok(Ok(reply)) => ("ok", Ok(reply.into_inner())),
            Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => ("refused", Err(status)),
            Ok(Err(status)) => ("error", Err(status)),
            Err(_) => ("timeout", Err(Status::deadline_exceeded("no answer within 2 s"))),
        };
        self.metrics.called_engine(call, outcome);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: rpc::Role, draining: bool) -> EngineState {
        EngineState { role: i32::from(role), draining, ..EngineState::default() }
    }

    #[test]
    fn only_what_differs_from_the_marks_is_set_right_and_draining_comes_first() {
        for (role, draining, state, expected) in [
            (Role::Decode, false, said(rpc::Role::Decode, false), None),
            (Role::Decode, false, said(rpc::Role::Mixed, false), Some(Correction::SetRole(Role::Decode))),
            (Role::Prefill, false, said(rpc::Role::Decode, false), Some(Correction::SetRole(Role::Prefill))),
            (Role::Prefill, true, said(rpc::Role::Decode, false), Some(Correction::Drain)),
            (Role::Prefill, true, said(rpc::Role::Decode, true), None),
            (Role::Decode, false, said(rpc::Role::Decode, true), Some(Correction::Undrain)),
        ] {
            assert_eq!(correction(role, draining, &state), expected, "{role} {draining} {state:?}");
        }
    }
}
