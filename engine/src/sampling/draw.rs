//! Truncation and the draw itself. Nothing sorts a whole vocabulary.

use std::cmp::Ordering;

use super::weights::{largest, sum, weights};
use crate::request::Sampling;

/// Below this a softmax is a maximum.
pub(super) const GREEDY_TEMPERATURE: f32 = 1e-5;
/// Logits that one maximum stands for in the search for the largest ones.
const TOP_K_BLOCK: usize = 64;
/// First guess of how many tokens top-p keeps.
const TOP_P_BLOCK: usize = 64;
/// Tokens whose weights are summed before the drawn one is looked for among them.
const PICK_BLOCK: usize = 512;

#[derive(Debug, Clone, Copy)]
struct Candidate {
    logit: f32,
    weight: f32,
    id: u32,
}

/// Likelier first, the lower id of equals.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

pub(super) fn draw(logits: &[f32], sampling: &Sampling, uniform: impl FnOnce() -> f64) -> Option<u32> {
    let (highest, best) = largest(logits)?;
    if sampling.temperature < GREEDY_TEMPERATURE {
        return Some(best);
    }
    let mut weights = weights(logits, highest, sampling.temperature.recip());
    let top_k = (1..logits.len()).contains(&sampling.top_k);
    if !top_k && sampling.top_p >= 1.0 {
        for weight in &mut weights {
            *weight = if *weight >= sampling.min_p { *weight } else { 0.0 };
        }
        return pick(&weights, uniform()).map(|index| index as u32);
    }
    let least = if top_k { top_k_floor(logits, sampling.top_k) } else { f32::NEG_INFINITY };
    let mut kept = candidates(logits, &weights, least);
    if top_k {
        keep_top_k(&mut kept, sampling.top_k);
    }
    if sampling.top_p < 1.0 {
        keep_top_p(&mut kept, f64::from(sampling.top_p));
    }
    kept.retain(|candidate| candidate.weight >= sampling.min_p);
    let weights: Vec<f32> = kept.iter().map(|candidate| candidate.weight).collect();
    pick(&weights, uniform()).map(|index| kept[index].id)
}

/// A logit that the `k` largest reach: of as many blocks, each has one that is at least its least maximum.
fn top_k_floor(logits: &[f32], k: usize) -> f32 {
    let maximum = |block: &[f32]| block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut maxima: Vec<f32> = logits.chunks(TOP_K_BLOCK).map(maximum).collect();
    if k > maxima.len() {
        return f32::NEG_INFINITY;
    }
    *maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

fn candidates(logits: &[f32], weights: &[f32], least: f32) -> Vec<Candidate> {
    let all = logits.iter().zip(weights).zip(0..);
    all.filter(|((logit, weight), _)| **logit >= least && **weight > 0.0)
        .map(|((logit, weight), id)| Candidate { logit: *logit, weight: *weight, id })
        .collect()
}

fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, order);
        candidates.truncate(k);
    }
}

/// Keeps the fewest of the likeliest tokens whose weights reach `p` of all.
fn keep_top_p(candidates: &mut Vec<Candidate>, p: f64) {
    let all: Vec<f32> = candidates.iter().map(|candidate| candidate.weight).collect();
    let total = sum(&all);
    // Tokens below this weigh less than the part that is cut off, even all of them together.
    let least = (1.0 - p) * total / all.len() as f64;
    candidates.retain(|candidate| f64::from(candidate.weight) >= least);
    let (mut reached, mut kept, mut block) = (0.0, 0, TOP_P_BLOCK);
    while kept < candidates.len() {
        let rest = &mut candidates[kept..];
        let next = block.min(rest.len());
        if next < rest.len() {
            rest.select_nth_unstable_by(next - 1, order);
        }
        rest[..next].sort_unstable_by(order);
        for candidate in &rest[..next] {
            reached += f64::from(candidate.weight);
            kept += 1;
            if reached >= p * total {
                candidates.truncate(kept);
                return;
            }
        }
        block *= 8;
    }
}

/// Index of the weight in which `uniform` of their sum lies.
fn pick(weights: &[f32], uniform: f64) -> Option<usize> {
    let sums: Vec<f64> = weights.chunks(PICK_BLOCK).map(sum).collect();
    let mut target = uniform * sums.iter().sum::<f64>();
    let mut chosen = None;
    for (block, sum) in sums.into_iter().enumerate().filter(|(_, sum)| *sum > 0.0) {
        chosen = Some(block);
        if target < sum {
            break;
        }
        target -= sum;
    }
    let start = chosen? * PICK_BLOCK;
    let block = &weights[start..weights.len().min(start + PICK_BLOCK)];
    let mut reached = 0.0;
    let found = block.iter().position(|weight| {
        reached += f64::from(*weight);
        *weight > 0.0 && reached > target
    });
    // Rounding can leave a block's weights a hair below the target.
    found.or_else(|| block.iter().rposition(|weight| *weight > 0.0)).map(|index| start + index)
}
