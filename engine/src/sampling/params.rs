//! From a peer's numbers to parameters that mean something.

use shoal_wire::limits::{MAX_LOGIT_BIAS, MAX_STOP_TOKENS, MAX_TOP_LOGPROBS};
use shoal_wire::rpc;

use crate::request::{Class, Sampling};

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`sampling.{field}` is {given}; allowed is {allowed}")]
pub struct SamplingError {
    pub field: &'static str,
    pub given: String,
    pub allowed: String,
}

impl SamplingError {
    pub fn class(&self) -> Class {
        Class::Invalid
    }
}

/// What the model contributes to the checks.
#[derive(Debug, Clone, Copy)]
pub struct SamplingLimits<'a> {
    pub vocabulary: usize,
    /// Tokens that end a sequence unless the request ignores them.
    pub eos: &'a [u32],
}

/// Checks every field; the grammar is compiled elsewhere.
///
/// Repetition, frequency and presence penalties and biases may be any number within a range that keeps
/// logits finite. A bias of -100 or less forbids the token.
pub fn sampling(wire: &rpc::Sampling, limits: SamplingLimits<'_>) -> Result<Sampling, SamplingError> {
    let rpc::Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        frequency_penalty,
        presence_penalty,
        logit_bias,
        seed,
        stop_token_ids,
        ignore_eos,
        max_tokens,
        min_tokens,
        logprobs,
        grammar: _,
    } = wire;
    within("temperature", *temperature, *temperature >= 0.0 && *temperature <= 100.0, "0 to 100")?;
    within("top_p", *top_p, *top_p > 0.0 && *top_p <= 1.0, "above 0, at most 1")?;
    within("min_p", *min_p, *min_p >= 0.0 && *min_p <= 1.0, "0 to 1")?;
    let repetition = *repetition_penalty;
    within(
        "repetition_penalty",
        repetition,
        repetition > 0.0 && repetition <= 100.0,
        "above 0, at most 100",
    )?;
    let (frequency, presence) = (*frequency_penalty, *presence_penalty);
    within("frequency_penalty", frequency, frequency.abs() <= 100.0, "-100 to 100")?;
    within("presence_penalty", presence, presence.abs() <= 100.0, "-100 to 100")?;
    at_most("logit_bias", logit_bias.len(), MAX_LOGIT_BIAS, "entries")?;
    at_most("stop_token_ids", stop_token_ids.len(), MAX_STOP_TOKENS, "entries")?;
    at_most("logprobs", logprobs.unwrap_or(0) as usize, MAX_TOP_LOGPROBS as usize, "top entries")?;
    if *max_tokens == 0 {
        return Err(error("max_tokens", &0, "1 or more"));
    }
    if min_tokens > max_tokens {
        return Err(error("min_tokens", min_tokens, format!("at most max_tokens, {max_tokens}")));
    }
    for id in stop_token_ids {
        token("stop_token_ids", *id, limits.vocabulary)?;
    }
    for entry in logit_bias {
        token("logit_bias.token", entry.token, limits.vocabulary)?;
        within("logit_bias.bias", entry.bias, entry.bias.is_finite(), "a finite number")?;
    }
    let eos = if *ignore_eos { &[] } else { limits.eos };
    Ok(Sampling {
        temperature: *temperature,
        top_k: *top_k as usize,
        top_p: *top_p,
        min_p: *min_p,
        repetition_penalty: repetition,
        frequency_penalty: frequency,
        presence_penalty: presence,
        logit_bias: logit_bias.iter().map(|entry| (entry.token, entry.bias.clamp(-100.0, 100.0))).collect(),
        seed: *seed,
        stop_token_ids: eos.iter().chain(stop_token_ids).copied().collect(),
        max_tokens: *max_tokens as usize,
        min_tokens: *min_tokens as usize,
        logprobs: logprobs.map(|top| top as usize),
    })
}

/// NaN fails every comparison, so it is refused like any other value out of range.
fn within(field: &'static str, given: f32, inside: bool, allowed: &str) -> Result<(), SamplingError> {
    if inside { Ok(()) } else { Err(error(field, &given, allowed)) }
}

fn at_most(field: &'static str, given: usize, most: usize, unit: &str) -> Result<(), SamplingError> {
    if given <= most { Ok(()) } else { Err(error(field, &given, format!("at most {most} {unit}"))) }
}

fn token(field: &'static str, id: u32, vocabulary: usize) -> Result<(), SamplingError> {
    if (id as usize) < vocabulary {
        Ok(())
    } else {
        Err(error(field, &id, format!("a token id below {vocabulary}")))
    }
}

fn error(field: &'static str, given: &impl ToString, allowed: impl Into<String>) -> SamplingError {
    SamplingError { field, given: given.to_string(), allowed: allowed.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SamplingLimits<'static> = SamplingLimits { vocabulary: 100, eos: &[7] };

    fn valid() -> rpc::Sampling {
        rpc::Sampling { top_p: 1.0, repetition_penalty: 1.0, max_tokens: 5, ..Default::default() }
    }

    #[test]
    fn valid_parameters_pass_and_end_tokens_join_the_stop_tokens() {
        let wire = rpc::Sampling { stop_token_ids: vec![3], ..valid() };
        assert_eq!(sampling(&wire, LIMITS).expect("valid").stop_token_ids, [7, 3]);
        let ignoring = rpc::Sampling { ignore_eos: true, ..wire };
        assert_eq!(sampling(&ignoring, LIMITS).expect("valid").stop_token_ids, [3]);
    }

    #[test]
    fn every_bad_field_is_named_with_what_is_allowed() {
        type Breaks = fn(&mut rpc::Sampling);
        let cases: [(&str, Breaks); 12] = [
            ("temperature", |s| s.temperature = f32::NAN),
            ("top_p", |s| s.top_p = 0.0),
            ("min_p", |s| s.min_p = -0.1),
            ("repetition_penalty", |s| s.repetition_penalty = 0.0),
            ("frequency_penalty", |s| s.frequency_penalty = f32::INFINITY),
            ("presence_penalty", |s| s.presence_penalty = -101.0),
            ("logit_bias.token", |s| s.logit_bias = vec![rpc::LogitBias { token: 100, bias: 0.0 }]),
            ("logit_bias.bias", |s| s.logit_bias = vec![rpc::LogitBias { token: 1, bias: f32::NAN }]),
            ("stop_token_ids", |s| s.stop_token_ids = vec![1; MAX_STOP_TOKENS + 1]),
            ("logprobs", |s| s.logprobs = Some(21)),
            ("max_tokens", |s| s.max_tokens = 0),
            ("min_tokens", |s| s.min_tokens = 6),
        ];
        for (field, breaks) in cases {
            let mut wire = valid();
            breaks(&mut wire);
            let error = sampling(&wire, LIMITS).expect_err(field);
            assert_eq!(error.field, field);
            assert!(error.to_string().contains("allowed is"), "{error}");
        }
    }
}
