//! Truncation and the draw itself. Nothing sorts a whole vocabulary.

use std::cmp::Ordering;

use crate::request::Sampling;

/// Below this a softmax is a maximum.
const GREEDY_TEMPERATURE: f32 = 1e-5;
/// First guess of how many tokens top-p keeps.
const TOP_P_BLOCK: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Candidate {
    logit: f32,
    id: u32,
}

/// Likelier first, the lower id of equals.
fn order(a: Candidate, b: Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

pub(super) fn draw(logits: &[f32], sampling: &Sampling, uniform: impl FnOnce() -> f64) -> Option<u32> {
    let best = argmax(logits)?;
    if sampling.temperature < GREEDY_TEMPERATURE {
        return Some(best.id);
    }
    let mut candidates = candidates(logits);
    keep_top_k(&mut candidates, sampling.top_k);
    let scale = f64::from(sampling.temperature).recip();
    let weight = |candidate: &Candidate| ((f64::from(candidate.logit) - f64::from(best.logit)) * scale).exp();
    if sampling.top_p < 1.0 {
        keep_top_p(&mut candidates, f64::from(sampling.top_p), weight);
    }
    let least = f64::from(sampling.min_p);
    let weights: Vec<(u32, f64)> = candidates
        .iter()
        .map(|candidate| (candidate.id, weight(candidate)))
        .filter(|(_, weight)| *weight >= least)
        .collect();
    pick(&weights, uniform())
}

fn argmax(logits: &[f32]) -> Option<Candidate> {
    let mut best: Option<Candidate> = None;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > best.map_or(f32::NEG_INFINITY, |best| best.logit) {
            best = Some(Candidate { logit: *logit, id: id as u32 });
        }
    }
    best
}

fn candidates(logits: &[f32]) -> Vec<Candidate> {
    let all = logits.iter().enumerate().map(|(id, logit)| Candidate { logit: *logit, id: id as u32 });
    all.filter(|candidate| candidate.logit > f32::NEG_INFINITY).collect()
}

fn keep_top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, |a, b| order(*a, *b));
        candidates.truncate(k);
    }
}

/// Keeps the fewest of the likeliest tokens whose weights reach `p` of all.
fn keep_top_p(candidates: &mut Vec<Candidate>, p: f64, weight: impl Fn(&Candidate) -> f64) {
    let wanted = p * candidates.iter().map(&weight).sum::<f64>();
    let (mut reached, mut kept, mut block) = (0.0, 0, TOP_P_BLOCK);
    while kept < candidates.len() {
        let rest = &mut candidates[kept..];
        let next = block.min(rest.len());
        if next < rest.len() {
            rest.select_nth_unstable_by(next - 1, |a, b| order(*a, *b));
        }
        rest[..next].sort_unstable_by(|a, b| order(*a, *b));
        for candidate in &rest[..next] {
            reached += weight(candidate);
            kept += 1;
            if reached >= wanted {
                candidates.truncate(kept);
                return;
            }
        }
        block *= 8;
    }
}

fn pick(weights: &[(u32, f64)], uniform: f64) -> Option<u32> {
    let target = uniform * weights.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut reached = 0.0;
    for (id, weight) in weights {
        reached += weight;
        if reached > target {
            return Some(*id);
        }
    }
    // Rounding can leave the sum a hair below the target.
    weights.iter().rev().find(|(_, weight)| *weight > 0.0).map(|(id, _)| *id)
}
