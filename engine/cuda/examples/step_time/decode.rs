//! Decode: 128 greedy steps, by graph, for each batch size, and where their time goes.

use std::time::Instant;

use serde_json::{Value, json};
use shoal_cuda::CudaModel;
use shoal_model::{LogitRows, SequenceRows};

use crate::floor::Floor;
use crate::{BATCHES, Outcome, PROMPT, STEPS};

const CONTEXT: usize = PROMPT + STEPS / 2;
const REPEATS: usize = 3;

pub(crate) fn measure(model: &mut CudaModel, floor: &Floor) -> Outcome<Vec<Value>> {
    let mut rows = Vec::new();
    for batch in BATCHES {
        rows.push(steps(model, floor, batch)?);
    }
    for batch in [1, 64, 256] {
        rows.extend(parts(model, floor, batch)?);
    }
    Ok(rows)
}

/// Every sequence has its own pages and its own token.
fn start(model: &mut CudaModel, batch: usize) -> Outcome<()> {
    let each = (PROMPT + STEPS).div_ceil(64);
    let tokens: Vec<u32> = (0..batch as u32).map(|s| 1000 + s * 37).collect();
    // Pages of neighbours lie apart, as after some hours of serving.
    let pages: Vec<Vec<u32>> =
        (0..batch).map(|s| (0..each).map(|p| (p * batch + s) as u32).collect()).collect();
    let rows: Vec<_> = (0..batch)
        .map(|s| SequenceRows {
            tokens: &tokens[s..=s],
            start: PROMPT,
            pages: &pages[s],
            logits: LogitRows::Last,
        })
        .collect();
    Ok(model.start_greedy(&rows)?)
}

fn steps(model: &mut CudaModel, floor: &Floor, batch: usize) -> Outcome<Value> {
    let (mut times, mut host) = (Vec::new(), f64::INFINITY);
    for turn in 0..=REPEATS {
        start(model, batch)?;
        model.synchronize()?;
        let started = Instant::now();
        for _ in 0..STEPS {
            model.step_greedy()?;
        }
        let enqueued = started.elapsed();
        model.synchronize()?;
        // The first turn warms up.
        if turn > 0 {
            times.push(started.elapsed().as_secs_f64() * 1e3 / STEPS as f64);
            host = host.min(enqueued.as_secs_f64() * 1e6 / STEPS as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    let (best, median, floor) = (times[0], times[REPEATS / 2], floor.decode(batch, CONTEXT));
    println!(
        "decode B={batch:3}: {best:.3} ms best, {median:.3} median, floor {floor:.3} ({:.0} %), host {host:.0} us",
        100.0 * floor / best
    );
    Ok(json!({
        "what": "decode", "batch": batch, "context": CONTEXT, "step_ms": best, "step_ms_median": median,
        "floor": floor, "share_of_floor": floor / best, "enqueue_us": host,
    }))
}

fn parts(model: &mut CudaModel, floor: &Floor, batch: usize) -> Outcome<Vec<Value>> {
    start(model, batch)?;
    let mut rows = Vec::new();
    for time in model.profile_greedy()? {
        let least = floor.part(time.part, batch, PROMPT) * 1e3;
        let share = if least > 0.0 { format!("{:.0} %", 100.0 * least / time.us) } else { "-".into() };
        println!("part B={batch:3} {:?}: {:.1} us of a step, floor {least:.1} ({share})", time.part, time.us);
        rows.push(json!({
            "what": "part", "batch": batch, "context": PROMPT, "part": format!("{:?}", time.part),
            "us": time.us, "floor_us": least,
        }));
    }
    Ok(rows)
}
