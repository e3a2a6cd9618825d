//! Cosines and sines of every position, with the model's scaling.

use std::f32::consts::PI;

use shoal_checkpoint::{ModelConfig, Rope, RopeScaling, RopeStyle};
use shoal_kernels::{Buffer, LaunchError, Pairing, Queue, RopeTables};

#[derive(Debug)]
pub(crate) struct Rotations {
    pub(crate) pairing: Pairing,
    positions: usize,
    pairs: usize,
    cos: Buffer<f32>,
    sin: Buffer<f32>,
}

impl Rotations {
    /// Angles are taken in f64: a product in f32 is wrong by milliradians at long contexts.
    pub(crate) fn new(queue: &Queue, config: &ModelConfig, positions: usize) -> Result<Self, LaunchError> {
        let (radians, magnitude) = frequencies(&config.rope, config.head_dim);
        let mut cos = Vec::with_capacity(positions * radians.len());
        let mut sin = Vec::with_capacity(positions * radians.len());
        for position in 0..positions {
            for radians in &radians {
                let (s, c) = (position as f64 * f64::from(*radians)).sin_cos();
                cos.push(c as f32 * magnitude);
                sin.push(s as f32 * magnitude);
            }
        }
        let pairing = match config.rope.style {
            RopeStyle::Half => Pairing::Half,
            RopeStyle::Interleaved => Pairing::Interleaved,
        };
        let (cos, sin) = (Buffer::from_host(queue, &cos)?, Buffer::from_host(queue, &sin)?);
        Ok(Self { pairing, positions, pairs: radians.len(), cos, sin })
    }

    pub(crate) fn tables(&self) -> Result<RopeTables<'_>, LaunchError> {
        let rows = |buffer| Buffer::rows(buffer, self.positions, self.pairs);
        Ok(RopeTables { cos: rows(&self.cos)?, sin: rows(&self.sin)? })
    }
}

/// Radians per position of each pair, and the factor on sine and cosine.
fn frequencies(rope: &Rope, head_dim: usize) -> (Vec<f32>, f32) {
    let plain = (0..head_dim / 2).map(|i| rope.theta.powf(-2.0 * i as f32 / head_dim as f32));
    let plain: Vec<f32> = plain.collect();
    match &rope.scaling {
        RopeScaling::None => (plain, 1.0),
        RopeScaling::Linear { factor } => (plain.iter().map(|f| f / factor).collect(), 1.0),
        RopeScaling::Factors(factors) => (plain.iter().zip(factors).map(|(f, by)| f / by).collect(), 1.0),
        &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let turned = |f: &f32| original_context as f32 * f / (2.0 * PI);
            let kept =
                |f| ((turned(f) - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            (plain.iter().map(|f| (1.0 - kept(f)) * f / factor + kept(f) * f).collect(), 1.0)
        }
        &RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => {
            let border = |turns: f32| {
                head_dim as f32 * (original_context as f32 / (turns * 2.0 * PI)).ln()
                    / (2.0 * rope.theta.ln())
            };
            let low = border(beta_fast).floor().max(0.0);
            let high = border(beta_slow).ceil().min(head_dim as f32 - 1.0);
            (yarn(&plain, factor, low, high), attention_factor)
        }
    }
}

/// Pairs below `low` keep their frequency, those above `high` are stretched by `factor`.
fn yarn(plain: &[f32], factor: f32, low: f32, high: f32) -> Vec<f32> {
    let width = if high > low { high - low } else { 0.001 };
    let blend = |(i, frequency): (usize, &f32)| {
        let stretched = ((i as f32 - low) / width).clamp(0.0, 1.0);
        frequency / factor * stretched + frequency * (1.0 - stretched)
    };
    plain.iter().enumerate().map(blend).collect()
}
