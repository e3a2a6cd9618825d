//! Changes to logits before anything is drawn.

use super::History;
use crate::request::Sampling;

/// The bias that OpenAI's API defines as a ban.
const BAN: f32 = -100.0;

/// Leaves finite values and negative infinity only.
pub(super) fn sanitize(logits: &mut [f32]) {
    for logit in logits {
        *logit = if logit.is_nan() { f32::NEG_INFINITY } else { logit.min(f32::MAX) };
    }
}

pub(super) fn bias(logits: &mut [f32], biases: &[(u32, f32)]) {
    for (token, bias) in biases {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit = if *bias <= BAN { f32::NEG_INFINITY } else { *logit + bias };
        }
    }
}

/// Repetition covers prompt and output; frequency and presence the output alone.
pub(super) fn penalize(logits: &mut [f32], sampling: &Sampling, history: &History) {
    for (token, count) in history.counts() {
        let Some(logit) = logits.get_mut(token as usize) else { continue };
        let repetition = sampling.repetition_penalty;
        *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
        if count > 0 {
            *logit -= sampling.frequency_penalty * count as f32 + sampling.presence_penalty;
        }
    }
}

pub(super) fn forbid(logits: &mut [f32], tokens: &[u32]) {
    for token in tokens {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}
