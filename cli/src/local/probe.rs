//! Asks processes whether they answer: engines by `GetState`, the gateway by `/ready`.
//!
//! One task per process, so that one that is silent delays nobody; the loop reads the latest answers.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use shoal_wire::{
    FleetSecret,
    rpc::{DrainRequest, EngineState, GetStateRequest, engine_client::EngineClient},
};
use tokio::{sync::watch, task::JoinHandle};
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use super::record::Ready;
use crate::http::Client;

/// How often each process is asked.
const PERIOD: Duration = Duration::from_millis(200);
/// How long an answer may take before the question is asked again.
const DEADLINE: Duration = Duration::from_secs(2);
/// Without an answer for this long a process is unresponsive.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// The latest thing a process said.
#[derive(Debug, Clone)]
pub(super) struct Answer<T> {
    pub(super) at: Instant,
    pub(super) said: T,
}

#[derive(Debug)]
pub(super) struct Probe<T> {
    since: Instant,
    /// Which process is asked: its address and incarnation.
    of: (String, String),
    latest: watch::Receiver<Option<Answer<T>>>,
    task: JoinHandle<()>,
}

impl<T> Drop for Probe<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T: Clone> Probe<T> {
    /// The latest answer, however old.
    pub(super) fn latest(&self) -> Option<Answer<T>> {
        self.latest.borrow().clone()
    }

    /// Time without an answer.
    pub(super) fn silence(&self) -> Duration {
        self.latest.borrow().as_ref().map_or(self.since, |answer| answer.at).elapsed()
    }
}

#[derive(Debug)]
pub(super) struct Probes {
    secret: FleetSecret,
    epoch: u64,
    http: Client,
    engines: HashMap<String, Probe<EngineState>>,
    gateway: Option<Probe<bool>>,
}

impl Probes {
    pub(super) fn new(secret: FleetSecret, epoch: u64) -> Self {
        Self { secret, epoch, http: Client::default(), engines: HashMap::new(), gateway: None }
    }

    /// The probe of an engine, begun anew if another process has its name now.
    pub(super) fn engine(&mut self, name: &str, ready: &Ready) -> Option<&Probe<EngineState>> {
        let of = (ready.address.clone(), ready.incarnation.clone());
        if self.engines.get(name).is_none_or(|probe| probe.of != of) {
            let channel = channel(&ready.address)?;
            let (sender, latest) = watch::channel(None);
            let task =
                tokio::spawn(ask_engine(channel, self.secret.clone(), name.to_owned(), of.1.clone(), sender));
            self.engines.insert(name.to_owned(), Probe { since: Instant::now(), of, latest, task });
        }
        self.engines.get(name)
    }

    /// The probe of the gateway process that was ready at `ready`.
    pub(super) fn gateway(&mut self, ready: &Ready) -> Option<&Probe<bool>> {
        let of = (ready.address.clone(), ready.since.to_string());
        if self.gateway.as_ref().is_none_or(|probe| probe.of != of) {
            let (sender, latest) = watch::channel(None);
            let task =
                tokio::spawn(ask_gateway(self.http.clone(), format!("http://{}", ready.address), sender));
            self.gateway = Some(Probe { since: Instant::now(), of, latest, task });
        }
        self.gateway.as_ref()
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.engines.remove(name);
    }

    /// Tells an engine to admit nothing new, or to admit again. What it says afterwards is what counts, so
    /// a call that is lost is made again on the next turn.
    pub(super) fn drain(&self, ready: &Ready, undo: bool) {
        let Some(channel) = channel(&ready.address) else { return };
        let request = self.secret.sign(Request::new(DrainRequest { undo, epoch: self.epoch }));
        tokio::spawn(async move {
            let _ = tokio::time::timeout(DEADLINE, EngineClient::new(channel).drain(request)).await;
        });
    }
}

fn channel(address: &str) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    Some(endpoint.connect_timeout(DEADLINE).connect_lazy())
}

async fn ask_engine(
    channel: Channel,
    secret: FleetSecret,
    name: String,
    incarnation: String,
    answers: watch::Sender<Option<Answer<EngineState>>>,
) {
    let mut client = EngineClient::new(channel);
    loop {
        let request = secret.sign(Request::new(GetStateRequest {}));
        if let Ok(Ok(reply)) = tokio::time::timeout(DEADLINE, client.get_state(request)).await {
            let said = reply.into_inner();
            // Another process may listen on a port that was given back.
            if said.instance == name && said.incarnation == incarnation {
                answers.send_replace(Some(Answer { at: Instant::now(), said }));
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn ask_gateway(http: Client, base: String, answers: watch::Sender<Option<Answer<bool>>>) {
    loop {
        if let Ok(Ok(status)) = tokio::time::timeout(DEADLINE, http.status(&format!("{base}/ready"))).await {
            answers.send_replace(Some(Answer { at: Instant::now(), said: status == 200 }));
        }
        tokio::time::sleep(PERIOD).await;
    }
}
