//! From a row of logits to a token, the same for the same inputs whatever else is in the batch.
//!
//! Order: logit bias, penalties, grammar mask, stop tokens masked before `min_tokens`, temperature, top-k,
//! top-p (of what top-k left), min-p, draw. Temperature 0 takes the largest logit, the lowest id of equals.
//! Reported log-probabilities are those of the model's own distribution, before all of this.

mod adjust;
mod draw;
mod history;
mod logprobs;
mod params;
mod random;
#[cfg(test)]
mod tests;
mod weights;

use shoal_model::Draw;

pub use history::History;
pub use params::{SamplingError, SamplingLimits, sampling};

use crate::grammar::{GrammarError, Matcher};
use crate::request::{SampledToken, Sampling};

/// How a backend may draw output token number `index` itself: if nothing but temperature, seed and index decides.
pub fn drawable(
    sampling: &Sampling,
    history: &History,
    grammar: Option<&Matcher>,
    index: usize,
) -> Option<Draw> {
    let greedy = sampling.temperature < draw::GREEDY_TEMPERATURE;
    let whole = sampling.top_k == 0 && sampling.top_p >= 1.0 && sampling.min_p <= 0.0;
    let plain = sampling.logprobs.is_none()
        && sampling.logit_bias.is_empty()
        && !history.is_kept()
        && grammar.is_none()
        && index >= sampling.min_tokens;
    let temperature = if greedy { 0.0 } else { sampling.temperature };
    let draw = Draw { temperature, seed: sampling.seed, index: u32::try_from(index).ok()? };
    (plain && (greedy || whole)).then_some(draw)
}

/// Samples output token number `index` (earlier attempts included) and leaves `logits` changed.
///
/// `None` if no token is possible: the grammar, the biases and `min_tokens` exclude all of them, or the
/// model produced no finite logit. NaN counts as impossible, infinity as the largest finite value.
pub fn sample(
    logits: &mut [f32],
    sampling: &Sampling,
    history: &History,
    grammar: Option<&mut Matcher>,
    index: usize,
) -> Result<Option<SampledToken>, GrammarError> {
    adjust::sanitize(logits);
    let raw = sampling.logprobs.map(|top| (top, logits.to_vec()));
    adjust::bias(logits, &sampling.logit_bias);
    adjust::penalize(logits, sampling, history);
    if let Some(grammar) = grammar {
        grammar.mask(logits)?;
    }
    if index < sampling.min_tokens {
        adjust::forbid(logits, &sampling.stop_token_ids);
    }
    let chosen = draw::draw(logits, sampling, || random::uniform(sampling.seed, index as u64));
    Ok(chosen.map(|id| match raw {
        None => SampledToken { id, logprob: None, top: Vec::new() },
        Some((count, raw)) => {
            let (logprob, top) = logprobs::report(&raw, id, count);
            SampledToken { id, logprob: Some(logprob), top }
        }
    }))
}
