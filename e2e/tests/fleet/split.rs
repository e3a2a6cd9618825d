//! One prefill and one decode instance, with a fault proxy between their data sockets.

use std::path::Path;

use anyhow::{Result, ensure};
use shoal_e2e::{Answer, Ask, Engine, EngineOptions, FaultProxy, Fleet, Relay, Role};

pub(crate) struct Split {
    pub fleet: Fleet,
    pub proxy: FaultProxy,
    relay: Relay,
    baseline: Vec<(String, usize)>,
}

impl Split {
    pub(crate) async fn start(model: &Path) -> Result<Self> {
        Self::start_with(model, &EngineOptions::default()).await
    }

    pub(crate) async fn start_with(model: &Path, options: &EngineOptions) -> Result<Self> {
        let mut fleet = Fleet::start_with(model, &[Role::Prefill, Role::Decode], options).await?;
        let (prefill, decode) = (&fleet.engines[0], &fleet.engines[1]);
        let proxy = FaultProxy::start(&decode.hello().data_address).await?;
        let relay = Relay::start(prefill.address(), proxy.address(), prefill.secret().clone()).await?;
        // Opens the connections that are kept for later requests.
        let prompt = shoal_e2e::model::prompt(1, 300);
        let warm = Ask::greedy(&prompt, 2).alone().prefilled_by(&[("prefill-0", relay.address())]);
        let answer = warm.run(decode).await?;
        ensure!(answer.prefilled_by() == "prefill-0", "{:?} prefilled", answer.started);
        ensure!(proxy.frames() == 5, "{} frames carry 300 tokens", proxy.frames());
        fleet.idle().await?;
        let baseline = fleet.sockets()?;
        Ok(Self { fleet, proxy, relay, baseline })
    }

    pub(crate) fn prefill(&self) -> &Engine {
        &self.fleet.engines[0]
    }

    pub(crate) fn decode(&self) -> &Engine {
        &self.fleet.engines[1]
    }

    /// The request, prefilled through the proxy by pages that nothing has cached.
    pub(crate) fn through_proxy(&self, ask: Ask) -> Ask {
        ask.alone().prefilled_by(&[("prefill-0", self.relay.address())])
    }

    /// What an undisturbed run answers: prefilled by the decode instance itself.
    pub(crate) async fn undisturbed(&self, ask: Ask) -> Result<Answer> {
        ask.alone().run(self.decode()).await
    }

    pub(crate) async fn refused_frames(&self) -> Result<u64> {
        Ok(self.decode().state().await?.load.map_or(0, |load| load.frames_refused))
    }

    /// Pages, transfers and sockets are back, and the fleet ends cleanly.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.fleet.settled(&self.baseline).await?;
        self.fleet.end().await
    }
}
