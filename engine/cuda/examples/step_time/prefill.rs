//! Prefill: distinct prompts packed into steps.

use std::time::Instant;

use serde_json::{Value, json};
use shoal_cuda::CudaModel;
use shoal_model::{LogitRows, SequenceRows};

use crate::floor::Floor;
use crate::{Outcome, PACKED, PROMPTS, STEP_TOKENS};

const REPEATS: usize = 3;

pub(crate) fn measure(model: &mut CudaModel, floor: &Floor) -> Outcome<Vec<Value>> {
    PROMPTS.into_iter().map(|length| prompts(model, floor, length)).collect()
}

fn prompts(model: &mut CudaModel, floor: &Floor, length: usize) -> Outcome<Value> {
    let (count, at_once) = (PACKED / length, STEP_TOKENS / length);
    let each = length.div_ceil(64);
    let vocabulary = model.config().vocabulary;
    let tokens: Vec<Vec<u32>> = (0..count)
        .map(|s| (0..length).map(|p| ((s * 7919 + p * 104_729 + 1000) % vocabulary) as u32).collect())
        .collect();
    let pages: Vec<Vec<u32>> =
        (0..count).map(|s| (0..each).map(|p| (p * count + s) as u32).collect()).collect();
    let rows: Vec<_> = (0..count)
        .map(|s| SequenceRows { tokens: &tokens[s], start: 0, pages: &pages[s], logits: LogitRows::Last })
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
    Ok(json!({
        "what": "prefill", "batch": count, "context": length, "tokens_per_s": best,
        "tokens_per_s_median": median, "floor": floor, "share_of_floor": best / floor,
    }))
}
