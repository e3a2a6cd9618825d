//! A client that goes away: work stops within a step, and pages come back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shoal_e2e::{Ask, Engine, EngineOptions, Fault, Fleet, Role, http, model, until};

use crate::split::Split;

const SOON: Duration = Duration::from_secs(20);
/// A step of this model takes well under a second even on a busy machine.
const STEPS: Duration = Duration::from_secs(3);

async fn waiting(engine: &Engine, count: u32) -> Result<()> {
    until("the request waits", SOON, || async {
        let load = engine.state().await?.load.context("a load")?;
        ensure!(load.waiting == count, "{load:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_client_leaving_the_queue_leaves_nothing() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let options = EngineOptions { max_batch: 1, ..EngineOptions::default() };
    let fleet = Fleet::start_with(&model, &[Role::Mixed], &options).await?;
    let engine = &fleet.engines[0];
    let ask = Ask::greedy(&model::prompt(51, 40), 150);
    let mut first = ask.clone().begin(engine).await?;
    first.tokens(1).await?;
    let second = Ask::greedy(&model::prompt(52, 40), 150).begin(engine).await?;
    waiting(engine, 1).await?;
    drop(second);
    waiting(engine, 0).await?;
    let disturbed = first.finish().await?;
    assert_eq!(disturbed.exact(), ask.run(engine).await?.exact());
    fleet.end().await
}

#[tokio::test]
async fn a_client_leaving_during_prefill_stops_it_within_a_step() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let split = Split::start(&model).await?;
    let prefill = split.prefill();
    let request = split.through_proxy(Ask::greedy(&model::prompt(53, 4000), 8)).begin(split.decode()).await?;
    until("prefill computes", SOON, || async {
        let load = prefill.state().await?.load.context("a load")?;
        ensure!(load.running > 0 && load.queued_prefill_tokens > 1000, "{load:?}");
        Ok(())
    })
    .await?;
    drop(request);
    prefill.idle(STEPS).await?;
    split.decode().idle(STEPS).await?;
    split.end().await
}

#[tokio::test]
async fn a_client_leaving_during_transfer_frees_both_sides() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let split = Split::start(&model).await?;
    split.proxy.set(Fault::Stall(1));
    let request = split.through_proxy(Ask::greedy(&model::prompt(54, 600), 8)).begin(split.decode()).await?;
    until("the transfer is held", SOON, || async {
        ensure!(split.proxy.frames() > 1 || split.decode().state().await?.transfers_open > 0, "no frame yet");
        ensure!(split.proxy.frames() > 0, "no frame yet");
        Ok(())
    })
    .await?;
    drop(request);
    split.decode().idle(Duration::from_secs(35)).await?;
    split.proxy.set(Fault::None);
    split.end().await
}

#[tokio::test]
async fn a_client_leaving_during_decode_stops_it_within_a_step() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let split = Split::start(&model).await?;
    let ask = Ask::greedy(&model::prompt(55, 100), 2000);
    let mut request = split.through_proxy(ask).begin(split.decode()).await?;
    request.tokens(3).await?;
    drop(request);
    split.decode().idle(STEPS).await?;
    split.end().await
}

#[tokio::test]
async fn a_closed_http_stream_stops_the_engines() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let mut fleet = Fleet::start(&model, &[Role::Prefill, Role::Decode]).await?.with_gateway(&[]).await?;
    let body = json!({
        "model": "smollm2", "prompt": "Count: one, two,", "max_tokens": 2000, "ignore_eos": true, "stream": true,
    });
    // The connections between gateway and engines are there before they are counted.
    let mut stream = http::stream(fleet.url()?, "/v1/completions", &body).await?;
    stream.next().await?.context("a first token")?;
    drop(stream);
    fleet.engines[1].idle(STEPS).await?;
    let baseline = fleet.sockets()?;
    for _ in 0..5 {
        let mut stream = http::stream(fleet.url()?, "/v1/completions", &body).await?;
        stream.next().await?.context("a first token")?;
        drop(stream);
        fleet.engines[1].idle(STEPS).await?;
    }
    fleet.settled(&baseline).await?;
    fleet.end().await
}
