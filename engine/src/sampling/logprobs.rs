//! Log-probabilities of the model's own distribution.

use std::cmp::Ordering;

/// Reported in place of negative infinity, which JSON cannot say.
const LEAST: f32 = -9999.0;

/// The log-probability of `chosen`, and the `count` likeliest tokens in order.
pub(super) fn report(logits: &[f32], chosen: u32, count: usize) -> (f32, Vec<(u32, f32)>) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    let logprob = |id: u32| {
        let logit = f64::from(logits[id as usize]) - f64::from(largest);
        (logit - sum.ln()).max(f64::from(LEAST)) as f32
    };
    let order =
        |a: &u32, b: &u32| -> Ordering { logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)) };
    let mut top: Vec<u32> = if count > 0 { (0..logits.len() as u32).collect() } else { Vec::new() };
    if count < top.len() {
        top.select_nth_unstable_by(count, order);
        top.truncate(count);
    }
    top.sort_unstable_by(order);
    (logprob(chosen), top.into_iter().map(|id| (id, logprob(id))).collect())
}
