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

use futures::{FutureExt as _, StreamExt as _, stream};
use jiff::Timestamp;
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
/// Calls on their way at once, of one cluster.
const AT_ONCE: usize = 256;
/// An answer as young as this serves another look, so that a burst of events does not become one of calls.
const FRESH: Duration = Duration::from_millis(250);
/// So does an answer of this age of an engine that is as its pod's marks say: news of it come by its pod.
const SETTLED: Duration = Duration::from_secs(5);
/// Questions in a second to engines that are as they should be, of all clusters: the more there are, the longer it takes
/// until each is asked again.
const RATE: f64 = 100.0;
/// An engine that did not answer is not asked again before.
const SILENT: Duration = Duration::from_secs(1);
/// With more engines than this, connections to those that are as they should be are not kept: each costs a
/// file descriptor and memory. It is then made anew, with its handshake, for every question.
const CONNECTIONS: usize = 512;
/// Without an answer for this long an engine is unresponsive.
pub const SILENCE: Duration = Duration::from_secs(10);

/// An engine that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub pod: String,
    pub uid: String,
    /// `ip:port` of its gRPC.
    pub address: String,
    /// When its container was started: what an earlier process said counts no more.
    pub since: Timestamp,
    /// What the marks of its pod say.
    pub role: Role,
    pub draining: bool,
    /// Within mutual TLS, and never without; the other way round for one that was started without.
    pub tls: bool,
}

impl Target {
    /// It is what the marks say, and not on its way out.
    fn is_settled(&self, said: &EngineState) -> bool {
        !self.draining && correction(self.role, self.draining, said).is_none()
    }
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

/// One engine process.
#[derive(Debug, Clone)]
struct Known {
    /// When its container was started, by the clock of its node.
    started: Timestamp,
    channel: Option<Channel>,
    last: Option<EngineState>,
    /// When it was last asked.
    asked: Option<Instant>,
    /// When it was asked first of those times that it has not answered since.
    silent: Option<Instant>,
}

impl Known {
    /// `round` is how long it takes to ask each engine once.
    fn is_due(&self, target: &Target, round: Duration) -> bool {
        let Some(at) = self.asked else { return true };
        let settled = self.last.as_ref().is_some_and(|said| target.is_settled(said));
        at.elapsed()
            >= match (self.silent.is_some(), settled) {
                (true, _) => SILENT,
                (false, true) => SETTLED.max(round),
                (false, false) => FRESH,
            }
    }

    fn answer(&self) -> Answer {
        let silence = self.silent.map_or(Duration::ZERO, |since| since.elapsed());
        Answer { silence, said: self.last.clone() }
    }
}

/// Engines by UID of their cluster and of their pod.
type ByPod = HashMap<String, Known>;

/// Connections to engines, and what each said last. All of it is learned again by asking.
#[derive(Debug)]
pub struct Engines {
    known: Mutex<HashMap<String, ByPod>>,
    metrics: Arc<Metrics>,
}

impl Engines {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { known: Mutex::default(), metrics }
    }

    /// Asks the engines of a cluster that are due, many at once, and forgets all others of it; by pod name. Takes
    /// no longer than one silent engine does, for every few hundred of them.
    pub async fn ask(&self, cluster: &str, targets: &[Target], pass: Pass<'_>) -> HashMap<String, Answer> {
        self.forget_others(cluster, targets);
        let round = self.round();
        let asked = targets.iter().map(|target| self.one(cluster, target, pass, round).boxed());
        let asked: Vec<_> = asked.collect();
        let answers: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        let answered = |(target, answer): (&Target, Option<Answer>)| Some((target.pod.clone(), answer?));
        targets.iter().zip(answers).filter_map(answered).collect()
    }

    /// How long it takes to ask each engine once.
    pub fn round(&self) -> Duration {
        let engines = self.known.lock().values().map(HashMap::len).sum::<usize>();
        Duration::from_secs_f64(engines as f64 / RATE)
    }

    async fn one(&self, cluster: &str, target: &Target, pass: Pass<'_>, round: Duration) -> Option<Answer> {
        let known = self.known(cluster, target);
        if !known.is_due(target, round) {
            return Some(known.answer());
        }
        let asked = Instant::now();
        let client = EngineClient::new(self.connection(cluster, target, pass)?);
        let request = pass.secret.sign(Request::new(GetStateRequest {}));
        let call = async |mut client: EngineClient<Channel>| client.get_state(request).await;
        let said = self.call("get_state", call(client)).await;
        // Another process may have the address of a pod that is gone.
        let said = said.ok().filter(|said| said.instance == target.pod);
        let mut all = self.known.lock();
        let many = all.values().map(HashMap::len).sum::<usize>() > CONNECTIONS;
        let known = all.get_mut(cluster)?.get_mut(&target.uid)?;
        known.asked = Some(Instant::now());
        if let Some(said) = said {
            if many && target.is_settled(&said) {
                known.channel = None;
            }
            known.last = Some(said);
            known.silent = None;
        } else {
            known.silent.get_or_insert(asked);
        }
        Some(known.answer())
    }

    /// Sets one thing right, under this epoch; what the engine says afterwards is what counts.
    pub async fn correct(
        &self,
        cluster: &str,
        target: &Target,
        pass: Pass<'_>,
        correction: Correction,
        epoch: u64,
    ) -> Result<(), Status> {
        let Some(channel) = self.connection(cluster, target, pass) else { return Ok(()) };
        let mut client = EngineClient::new(channel);
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
        if let Some(known) = self.known.lock().get_mut(cluster).and_then(|pods| pods.get_mut(&target.uid)) {
            known.asked = None;
        }
        Ok(())
    }

    /// Forgets every cluster that is gone.
    pub fn keep(&self, exists: impl Fn(&str) -> bool) {
        self.known.lock().retain(|cluster, _| exists(cluster));
    }

    fn forget_others(&self, cluster: &str, targets: &[Target]) {
        let mut all = self.known.lock();
        let Some(known) = all.get_mut(cluster) else { return };
        let stay: HashSet<&str> = targets.iter().map(|target| target.uid.as_str()).collect();
        known.retain(|uid, _| stay.contains(uid.as_str()));
    }

    /// What is known of the process that runs in the pod now.
    fn known(&self, cluster: &str, target: &Target) -> Known {
        let fresh = || Known { started: target.since, channel: None, last: None, asked: None, silent: None };
        let mut all = self.known.lock();
        let pods = all.entry(cluster.to_owned()).or_default();
        let known = pods.entry(target.uid.clone()).or_insert_with(fresh);
        if known.started != target.since {
            *known = fresh();
        }
        known.clone()
    }

    /// None for an engine within TLS while the fleet has no certificates.
    fn connection(&self, cluster: &str, target: &Target, pass: Pass<'_>) -> Option<Channel> {
        if let Some(channel) = self.known(cluster, target).channel {
            return Some(channel);
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", target.address)).ok()?;
        let identity = if target.tls { Some(pass.identity?) } else { None };
        let channel = tls::channel(&endpoint.connect_timeout(DEADLINE), identity);
        let mut all = self.known.lock();
        let known = all.get_mut(cluster).and_then(|pods| pods.get_mut(&target.uid))?;
        known.channel = Some(channel.clone());
        Some(channel)
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
    fn the_more_is_expected_of_an_engine_the_sooner_it_is_asked_again() {
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let target = |draining| Target {
            pod: "chat-0-1".to_owned(),
            uid: "uid".to_owned(),
            address: "127.0.0.1:1".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            role: Role::Decode,
            draining,
            tls: false,
        };
        let known = |asked: Option<(u64, bool)>, role, draining| Known {
            started: Timestamp::UNIX_EPOCH,
            channel: None,
            last: Some(said(role, draining)),
            asked: asked.map(|(seconds, _)| ago(seconds)),
            silent: asked.and_then(|(seconds, answered)| (!answered).then(|| ago(seconds + 2))),
        };
        let (decode, mixed) = (rpc::Role::Decode, rpc::Role::Mixed);
        for (known, draining, round, due) in [
            (known(None, decode, false), false, 1, true),
            (known(Some((2, true)), decode, false), false, 1, false),
            (known(Some((6, true)), decode, false), false, 1, true),
            (known(Some((6, true)), decode, false), false, 60, false),
            (known(Some((61, true)), decode, false), false, 60, true),
            (known(Some((2, true)), mixed, false), false, 60, true),
            (known(Some((2, true)), decode, true), true, 60, true),
            (known(Some((0, false)), decode, false), false, 60, false),
            (known(Some((2, false)), decode, false), false, 60, true),
        ] {
            let found = known.is_due(&target(draining), Duration::from_secs(round));
            assert_eq!(found, due, "{known:?} {draining} {round}");
        }
        let silence = |answered| known(Some((60, answered)), decode, false).answer().silence;
        assert_eq!(silence(true), Duration::ZERO, "it answered when it was last asked, however long ago");
        assert_eq!(silence(false).as_secs(), 62, "since it was first asked in vain");
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
