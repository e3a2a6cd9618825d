//! Bounds of a believable configuration. They keep products of sizes far from overflow and turn absurd
//! values into an error that names the field.

use crate::config::{ModelConfig, RopeScaling};
use crate::error::{Fault, Part, Problem};

const MAX_END_TOKENS: usize = 64;

pub(crate) fn check(config: &ModelConfig) -> Result<(), Fault> {
    size("number of layers", config.layers, 1 << 10)?;
    size("hidden size", config.hidden, 1 << 17)?;
    size("number of heads", config.heads, 1 << 12)?;
    size("number of key-value heads", config.kv_heads, config.heads)?;
    size("head size", config.head_dim, 1 << 10)?;
    size("feed-forward size", config.ffn, 1 << 20)?;
    size("vocabulary size", config.vocabulary, 1 << 24)?;
    size("context length", config.max_context, 1 << 30)?;
    size("sliding window", config.sliding_window.unwrap_or(1), 1 << 30)?;
    multiple("number of heads", config.heads, config.kv_heads)?;
    multiple("head size", config.head_dim, 2)?;
    real("RMS norm epsilon", config.rms_eps, 0.0, 1.0)?;
    real("rope base", config.rope.theta, 1.0, 1e12)?;
    scaling(&config.rope.scaling, config.head_dim)?;
    tokens(config)
}

fn size(field: &'static str, found: usize, most: usize) -> Result<(), Fault> {
    if (1..=most).contains(&found) {
        return Ok(());
    }
    Err(Part::key(field).has(Problem::not_allowed(found, format_args!("1 to {most}"))))
}

fn multiple(field: &'static str, found: usize, of: usize) -> Result<(), Fault> {
    if found.is_multiple_of(of) {
        return Ok(());
    }
    Err(Part::key(field).has(Problem::not_allowed(found, format_args!("multiples of {of}"))))
}

/// Infinities and NaN are outside of every range.
fn real(field: &'static str, found: f32, least: f32, most: f32) -> Result<(), Fault> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(Part::key(field).has(Problem::not_allowed(found, format_args!("{least} to {most}"))))
}

fn scaling(scaling: &RopeScaling, head_dim: usize) -> Result<(), Fault> {
    const FACTOR: &str = "rope scaling factor";
    let factor = |factor: f32| real(FACTOR, factor, 1e-3, 1e6);
    match scaling {
        RopeScaling::None => Ok(()),
        RopeScaling::Linear { factor: by } => factor(*by),
        RopeScaling::Llama3 { factor: by, low_freq_factor, high_freq_factor, original_context } => {
            factor(*by)?;
            real("rope low_freq_factor", *low_freq_factor, 1e-3, 1e6)?;
            // Equal bounds would divide by zero between them.
            real("rope high_freq_factor", *high_freq_factor, low_freq_factor.next_up(), 1e6)?;
            size("rope original context", *original_context, 1 << 30)
        }
        RopeScaling::Yarn { factor: by, original_context, beta_fast, beta_slow, attention_factor } => {
            factor(*by)?;
            size("rope original context", *original_context, 1 << 30)?;
            real("rope beta_slow", *beta_slow, 1e-3, 1e6)?;
            real("rope beta_fast", *beta_fast, *beta_slow, 1e6)?;
            real("rope attention factor", *attention_factor, 1e-3, 1e3)
        }
        RopeScaling::Factors(factors) => {
            if factors.len() != head_dim / 2 {
                let found = format!("{} factors", factors.len());
                let allowed = format!("half the head size, {}", head_dim / 2);
                return Err(Part::tensor("rope_freqs.weight").has(Problem::not_allowed(found, allowed)));
            }
            factors.iter().try_for_each(|by| factor(*by))
        }
    }
}

fn tokens(config: &ModelConfig) -> Result<(), Fault> {
    if config.eos.len() > MAX_END_TOKENS {
        let found = format!("{} tokens", config.eos.len());
        return Err(Part::key("end tokens").has(Problem::not_allowed(found, "at most 64")));
    }
    for (field, id) in config.bos.iter().map(|id| ("bos", id)).chain(config.eos.iter().map(|id| ("eos", id)))
    {
        if *id as usize >= config.vocabulary {
            let allowed = format!("token ids below {}", config.vocabulary);
            return Err(Part::key(field).has(Problem::not_allowed(id, allowed)));
        }
    }
    Ok(())
}
