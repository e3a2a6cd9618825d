//! Certificates and their authority are exchanged while a fleet serves.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use shoal_e2e::certificates::{Authority, Volume, trusting};
use shoal_e2e::{Ask, EngineOptions, Fleet, Role, http, model, until};
use shoal_wire::rpc::HelloRequest;
use shoal_wire::rpc::engine_client::EngineClient;
use shoal_wire::tls::{self, Identity, Material};
use tonic::transport::Endpoint;

const NAME: &str = "chat.team.fleet.shoal.internal";
const FOLLOW: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_new_authority_takes_over_under_load_without_a_failed_request() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let (old, new) = (Authority::new("old")?, Authority::new("new")?);
    let (before, after) = (old.issue(NAME)?, new.issue(NAME)?);
    let folder = tempfile::tempdir()?;
    let mut volume = Volume::new(&folder.path().join("tls"), &before)?;
    let options = EngineOptions { tls: Some(volume.folder().to_owned()), ..EngineOptions::default() };
    let fleet = Fleet::start_with(&model, &[Role::Prefill, Role::Decode], &options).await?;
    let tls = volume.folder().display().to_string();
    let mut fleet = fleet.with_gateway(&["--tls-dir", &tls, "--prefill", "remote"]).await?;
    let long = Ask::greedy(&model::prompt(1, 100), 400)
        .prefilled_by(&[("prefill-0", fleet.engines[0].address())])
        .begin(&fleet.engines[1])
        .await?;

    let url = fleet.url()?.to_owned();
    let (answered, enough) = (AtomicU32::new(0), AtomicBool::new(false));
    let load = try_join_all((0..3).map(|client| ask_on(&url, client, &answered, &enough)));
    let rotation = async {
        let steps = [trusting(&before, &[&old, &new]), trusting(&after, &[&old, &new]), after.clone()];
        let rotated = rotate(&mut fleet, &mut volume, &steps, &options, &answered).await;
        enough.store(true, Ordering::Relaxed);
        rotated
    };
    let (loaded, rotated) = tokio::join!(load, rotation);
    loaded?;
    rotated?;
    ensure!(long.finish().await?.ids().len() == 400, "a stream from before goes on through all of it");

    let engine = fleet.engines[1].address().to_owned();
    ensure!(
        greet(&engine, Some(&after)).await.is_ok_and(|authenticated| !authenticated),
        "a member, without the secret"
    );
    ensure!(greet(&engine, Some(&before)).await.is_err(), "the old authority is trusted no more");
    ensure!(greet(&engine, None).await.is_err(), "nobody gets in without TLS");
    fleet.end().await
}

/// Exchanges the folder step by step, then makes new processes and connections, and sees requests go on.
async fn rotate(
    fleet: &mut Fleet,
    volume: &mut Volume,
    steps: &[Material],
    options: &EngineOptions,
    answered: &AtomicU32,
) -> Result<()> {
    for (round, material) in steps.iter().enumerate() {
        volume.exchange(material)?;
        used(fleet, round + 1).await?;
    }
    fleet.add(Role::Decode, options).await?;
    let all: Vec<_> = fleet.engines.iter().map(|engine| (engine.name(), engine.address())).collect();
    fleet.gateway.iter().try_for_each(|gateway| gateway.list(&all))?;
    let (prefill, fresh) = (&fleet.engines[0], &fleet.engines[2]);
    let ask = Ask::greedy(&model::prompt(2, 300), 4).alone();
    let answer = ask.prefilled_by(&[("prefill-0", prefill.address())]).run(fresh).await?;
    ensure!(answer.prefilled_by() == "prefill-0", "{:?}", answer.started);
    let counted = answered.load(Ordering::Relaxed);
    until("requests go on", FOLLOW, || async {
        let now = answered.load(Ordering::Relaxed);
        ensure!(now >= counted + 6, "{now} answers");
        Ok(())
    })
    .await
}

/// One request after the other, each with a prompt of its own; the first that fails fails the test.
async fn ask_on(url: &str, client: u32, answered: &AtomicU32, enough: &AtomicBool) -> Result<()> {
    for number in 0.. {
        if enough.load(Ordering::Relaxed) {
            break;
        }
        let prompt = format!("Request {number} of client {client} tells a short story about the sea.");
        let body = json!({"model": "smollm2", "prompt": prompt, "max_tokens": 8, "temperature": 0});
        http::post(url, "/v1/completions", &body).await?.ok()?;
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Waits until every process has taken that many changes of its folder into use.
async fn used(fleet: &Fleet, times: usize) -> Result<()> {
    let gateway = fleet.gateway.iter().map(|gateway| &gateway.process);
    let processes: Vec<_> = fleet.engines.iter().map(|engine| &engine.process).chain(gateway).collect();
    until("every process uses what is in the folder", FOLLOW, || async {
        for process in &processes {
            let count = process.logged("new certificates are in use")?;
            ensure!(count == times, "{} did {count} of {times} times", process.name());
        }
        Ok(())
    })
    .await
}

/// A call without the fleet's secret: true if it was answered, false if only the secret was missing.
async fn greet(address: &str, material: Option<&Material>) -> Result<bool> {
    let identity = material.map(Identity::new).transpose()?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(FOLLOW);
    let mut client = EngineClient::new(tls::channel(&endpoint, identity.as_ref()));
    match client.hello(HelloRequest { fingerprint: None }).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == tonic::Code::Unauthenticated => Ok(false),
        Err(status) => Err(status.into()),
    }
}
