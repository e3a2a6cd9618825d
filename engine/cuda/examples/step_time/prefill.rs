//! Prefill: distinct prompts packed into steps.

use std::time::Instant;

use serde_json::{Value, json};
use shoal_cuda::{CudaModel, PartTime};
use shoal_model::{LogitRows, SequenceRows};

use crate::floor::Floor;
use crate::{Outcome, PACKED, PROMPTS, STEP_TOKENS};

const REPEATS: usize = 3;

pub(crate) fn measure(model: &mut CudaModel, floor: &Floor) -> Outcome<Vec<Value>> {
    let mut rows = Vec::new();
    for length in PROMPTS {
        rows.extend(prompts(model, floor, length)?);
    }
    Ok(rows)
}

fn prompts(model: &mut CudaModel, floor: &Floor, length: usize) -> Outcome<Vec<Value>> {
    let (count, at_once) = ((PACKED / length).max(1), (STEP_TOKENS / length).max(1));
    let each = length.div_ceil(64);
    let vocabulary = model.config().vocabulary;
    let tokens: Vec<Vec<u32>> = (0..count)
        .map(|s| (0..length).map(|p| ((s * 7919 + p * 104_729 + 1000) % vocabulary) as u32).collect())
        .collect();
    let pages: Vec<Vec<u32>> =
        (0..count).map(|s| (0..each).map(|p| (p * count + s) as u32).collect()).collect();
    // A prompt longer than a step is computed in several.
    let rows: Vec<_> = (0..count)
        .flat_map(|s| {
            let pages = &pages[s];
            tokens[s].chunks(STEP_TOKENS).enumerate().map(move |(chunk, tokens)| SequenceRows {
                tokens,
                start: chunk * STEP_TOKENS,
                pages,
                logits: LogitRows::Last,
            })
        })
        .collect();
    let mut times = Vec::new();
    for _ in 0..=REPEATS {
        let started = Instant::now();
        for step in rows.chunks(at_once) {
            model.enqueue(step)?;
        }
        model.synchronize()?;
        times.push(started.elapsed().as_secs_f64());
    }
    let mut times = times.split_off(1);
    times.sort_by(f64::total_cmp);
    let rate = |seconds: f64| PACKED as f64 / seconds;
    let (best, median, floor) = (rate(times[0]), rate(times[REPEATS / 2]), floor.prefill(length));
    println!(
        "prefill {length}: {best:.0} tokens/s best, {median:.0} median, floor {floor:.0} ({:.0} %)",
        100.0 * best / floor
    );
    let mut report = vec![json!({
        "what": "prefill", "batch": count, "context": length, "tokens_per_s": best,
        "tokens_per_s_median": median, "floor": floor, "share_of_floor": best / floor,
    })];
    for PartTime { part, us } in model.profile_step(&rows[..at_once])? {
        println!("prefill {length}, a step of {STEP_TOKENS} tokens, {part:?}: {us:.0} us");
        report.push(json!({ "what": "prefill part", "batch": at_once, "context": length, "part": format!("{part:?}"), "us": us }));
    }
    Ok(report)
}
