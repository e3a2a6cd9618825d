//! A network that cuts, stalls, corrupts, repeats or delays pages.

use std::time::Duration;

use anyhow::{Result, ensure};
use shoal_e2e::{Ask, Fault, model, until};

use crate::split::Split;

/// Ten pages.
const PROMPT: usize = 600;

/// The disturbed answer is the undisturbed one; returns who prefilled.
async fn equal_under(split: &Split, fault: Fault, seed: u32) -> Result<String> {
    let ask = Ask::greedy(&model::prompt(seed, PROMPT), 8);
    let expected = split.undisturbed(ask.clone()).await?;
    split.proxy.set(fault);
    let answer = split.through_proxy(ask).run(split.decode()).await?;
    assert_eq!(answer.exact(), expected.exact(), "{fault:?}");
    assert!(split.proxy.frames() > 0, "{fault:?} met no frame");
    Ok(answer.prefilled_by().to_owned())
}

/// After the fault is gone, the same pair works again.
async fn heals(split: &Split, seed: u32) -> Result<()> {
    split.proxy.set(Fault::None);
    let by = equal_under(split, Fault::None, seed).await?;
    ensure!(by == "prefill-0", "{by} prefilled although the fault is gone");
    Ok(())
}

#[tokio::test]
async fn a_cut_data_socket_costs_time_only() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let split = Split::start(&model).await?;
    equal_under(&split, Fault::Cut(2), 31).await?;
    heals(&split, 32).await?;
    split.end().await
}

#[tokio::test]
async fn a_stalled_data_socket_is_given_up() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let split = Split::start(&model).await?;
    let by = equal_under(&split, Fault::Stall(2), 33).await?;
    assert_eq!(by, "decode-1");
    heals(&split, 34).await?;
    split.end().await
}

#[tokio::test]
async fn a_corrupted_page_is_never_used() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let split = Split::start(&model).await?;
    let before = split.refused_frames().await?;
    equal_under(&split, Fault::Corrupt(3), 35).await?;
    assert!(split.refused_frames().await? > before, "the corrupted frame was refused");
    heals(&split, 36).await?;
    split.end().await
}

#[tokio::test]
async fn pages_that_come_twice_count_once() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let split = Split::start(&model).await?;
    let by = equal_under(&split, Fault::Duplicate, 37).await?;
    assert_eq!(by, "prefill-0", "a repeated page is no reason to give up");
    heals(&split, 38).await?;
    split.end().await
}

#[tokio::test]
async fn a_page_that_comes_after_its_transfer_lands_nowhere() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let split = Split::start(&model).await?;
    equal_under(&split, Fault::None, 39).await?;
    split.decode().idle(Duration::from_secs(10)).await?;
    let before = split.refused_frames().await?;
    split.proxy.replay_last().await?;
    until("the late frame is refused", Duration::from_secs(10), || async {
        let now = split.refused_frames().await?;
        ensure!(now > before, "{now} frames refused");
        Ok(())
    })
    .await?;
    heals(&split, 40).await?;
    split.end().await
}

#[tokio::test]
async fn a_slow_network_is_no_wrong_answer() -> Result<()> {
    let Some(model) = model::find()? else { return Ok(()) };
    let split = Split::start(&model).await?;
    equal_under(&split, Fault::Slow(20 << 20), 41).await?;
    heals(&split, 42).await?;
    split.end().await
}
