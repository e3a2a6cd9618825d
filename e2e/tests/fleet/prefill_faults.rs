//! A prefill instance that is lost, silent or wrong costs time, never a request.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shoal_e2e::{Ask, EngineOptions, Fleet, Role, model, until};

const SOON: Duration = Duration::from_secs(20);

/// Two prefill instances, so that a retry has somewhere to go.
const TWO: &[Role] = &[Role::Prefill, Role::Prefill, Role::Decode];

async fn received_more_than(fleet: &Fleet, before: u64) -> Result<()> {
    until("pages arrive", SOON, || async {
        let load = fleet.engines[2].state().await?.load.context("a load")?;
        ensure!(load.kv_bytes_received > before, "{} bytes received", load.kv_bytes_received);
        Ok(())
    })
    .await
}

/// Both targets, the first of which is the one that gets disturbed.
fn targets(fleet: &Fleet) -> [(&str, &str); 2] {
    [("prefill-0", fleet.engines[0].address()), ("prefill-1", fleet.engines[1].address())]
}

#[tokio::test]
async fn a_prefill_killed_before_the_request_is_replaced_by_the_next() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let mut fleet = Fleet::start(&model, TWO).await?;
    let ask = Ask::greedy(&model::prompt(21, 300), 12);
    let expected = ask.clone().alone().run(&fleet.engines[2]).await?;
    fleet.engines[0].process.kill()?;
    let answer = ask.alone().prefilled_by(&targets(&fleet)).run(&fleet.engines[2]).await?;
    assert_eq!(answer.exact(), expected.exact());
    assert_eq!(answer.prefilled_by(), "prefill-1");
    fleet.end().await
}

#[tokio::test]
async fn with_no_prefill_left_decode_prefills_itself() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let mut fleet = Fleet::start(&model, TWO).await?;
    let ask = Ask::greedy(&model::prompt(22, 300), 12);
    let expected = ask.clone().alone().run(&fleet.engines[2]).await?;
    fleet.engines[0].process.kill()?;
    fleet.engines[1].process.kill()?;
    let answer = ask.alone().prefilled_by(&targets(&fleet)).run(&fleet.engines[2]).await?;
    assert_eq!(answer.exact(), expected.exact());
    assert_eq!(answer.prefilled_by(), "decode-2");
    assert_eq!(answer.kv_bytes(), 0);
    fleet.end().await
}

#[tokio::test]
async fn a_prefill_killed_during_transfer_is_replaced_by_the_next() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let mut fleet = Fleet::start(&model, TWO).await?;
    let ask = Ask::greedy(&model::prompt(23, 2000), 8);
    let expected = ask.clone().alone().run(&fleet.engines[2]).await?;
    let disturbed = ask.alone().prefilled_by(&targets(&fleet)).begin(&fleet.engines[2]).await?;
    received_more_than(&fleet, 0).await?;
    fleet.engines[0].process.kill()?;
    let answer = disturbed.finish().await?;
    assert_eq!(answer.exact(), expected.exact());
    assert_eq!(answer.prefilled_by(), "prefill-1");
    fleet.end().await
}

#[tokio::test]
async fn a_prefill_killed_after_transfer_is_not_missed() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let mut fleet = Fleet::start(&model, TWO).await?;
    let ask = Ask::greedy(&model::prompt(24, 300), 40);
    let expected = ask.clone().alone().run(&fleet.engines[2]).await?;
    let mut disturbed = ask.alone().prefilled_by(&targets(&fleet)).begin(&fleet.engines[2]).await?;
    disturbed.tokens(2).await?;
    fleet.engines[0].process.kill()?;
    let answer = disturbed.finish().await?;
    assert_eq!(answer.exact(), expected.exact());
    assert_eq!(answer.prefilled_by(), "prefill-0");
    fleet.end().await
}

#[tokio::test]
async fn a_prefill_that_falls_silent_during_transfer_is_given_up() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let fleet = Fleet::start(&model, TWO).await?;
    let ask = Ask::greedy(&model::prompt(25, 2000), 8);
    let expected = ask.clone().alone().run(&fleet.engines[2]).await?;
    let disturbed = ask.alone().prefilled_by(&targets(&fleet)).begin(&fleet.engines[2]).await?;
    received_more_than(&fleet, 0).await?;
    fleet.engines[0].process.pause()?;
    let answer = disturbed.finish().await;
    fleet.engines[0].process.resume()?;
    let answer = answer?;
    assert_eq!(answer.exact(), expected.exact());
    assert_eq!(answer.prefilled_by(), "prefill-1");
    // What the first one still sends when it wakes lands nowhere: the same pages serve the next request.
    let again = Ask::greedy(&model::prompt(25, 2000), 8).run(&fleet.engines[2]).await?;
    assert_eq!(again.exact(), expected.exact());
    fleet.end().await
}

#[tokio::test]
async fn a_prefill_of_another_model_is_refused_before_a_page_moves() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let mut fleet = Fleet::start(&model, &[Role::Decode]).await?;
    let other = fleet.folder().join("other.gguf");
    let mut bytes = std::fs::read(&model)?;
    let last = bytes.len() - 1000;
    bytes[last] ^= 1;
    std::fs::write(&other, bytes)?;
    fleet.add_serving(Role::Prefill, &other, &EngineOptions::default()).await?;
    let [decode, prefill] = &fleet.engines[..] else { unreachable!("two engines were started") };
    let ask = Ask::greedy(&model::prompt(26, 200), 8);
    let expected = ask.clone().alone().run(decode).await?;
    let answer = ask.alone().prefilled_by(&[("prefill-1", prefill.address())]).run(decode).await?;
    assert_eq!(answer.exact(), expected.exact());
    assert_eq!(answer.prefilled_by(), "decode-0");
    assert_eq!(prefill.state().await?.load.map(|load| load.kv_bytes_sent), Some(0));
    fleet.end().await
}
