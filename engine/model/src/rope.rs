//! Rotary position embedding: frequencies with their scaling, and the rotation of a head.

use std::f32::consts::PI;

use shoal_checkpoint::{Rope, RopeScaling, RopeStyle};

/// Frequencies of a model's pairs, with their scaling.
#[derive(Debug)]
pub struct RopeFrequencies {
    style: RopeStyle,
    /// Radians per position, for each pair of elements.
    radians: Vec<f32>,
    /// Factor on sine and cosine.
    magnitude: f32,
}

/// Cosine and sine of each pair at one position.
pub(crate) type Rotation = [(f32, f32)];

impl RopeFrequencies {
    pub fn new(rope: &Rope, head_dim: usize) -> Self {
        let plain = (0..head_dim / 2).map(|i| rope.theta.powf(-2.0 * i as f32 / head_dim as f32));
        let plain: Vec<f32> = plain.collect();
        let (radians, magnitude) = match &rope.scaling {
            RopeScaling::None => (plain, 1.0),
            RopeScaling::Linear { factor } => (plain.iter().map(|f| f / factor).collect(), 1.0),
            RopeScaling::Factors(factors) => (plain.iter().zip(factors).map(|(f, by)| f / by).collect(), 1.0),
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let context = original_context as f32;
                let scaled =
                    plain.iter().map(|f| llama3(*f, factor, low_freq_factor, high_freq_factor, context));
                (scaled.collect(), 1.0)
            }
            &RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => {
                let border = |turns| yarn_border(turns, head_dim, rope.theta, original_context);
                let (low, high) = (border(beta_fast).floor(), border(beta_slow).ceil());
                (yarn(&plain, factor, low.max(0.0), high.min(head_dim as f32 - 1.0)), attention_factor)
            }
        };
        Self { style: rope.style, radians, magnitude }
    }

    /// Appends the rotation of a position: cosine and sine of each pair. Angles are taken in f64: a product in f32 is wrong by
    /// milliradians at long contexts.
    pub fn push_rotation(&self, position: usize, to: &mut Vec<(f32, f32)>) {
        to.extend(self.radians.iter().map(|radians| {
            let (sin, cos) = (position as f64 * f64::from(*radians)).sin_cos();
            (cos as f32 * self.magnitude, sin as f32 * self.magnitude)
        }));
    }

    pub fn pairs(&self) -> usize {
        self.radians.len()
    }

    /// Turns one head in place.
    pub(crate) fn rotate(&self, head: &mut [f32], rotation: &Rotation) {
        match self.style {
            RopeStyle::Half => {
                let (first, second) = head.split_at_mut(rotation.len());
                for ((a, b), turn) in first.iter_mut().zip(second).zip(rotation) {
                    (*a, *b) = rotated(*a, *b, *turn);
                }
            }
            RopeStyle::Interleaved => {
                for (pair, turn) in head.as_chunks_mut::<2>().0.iter_mut().zip(rotation) {
                    (pair[0], pair[1]) = rotated(pair[0], pair[1], *turn);
                }
            }
        }
    }
}

fn rotated(a: f32, b: f32, (cos, sin): (f32, f32)) -> (f32, f32) {
    (a * cos - b * sin, b * cos + a * sin)
}

/// Long waves are stretched by `factor`, short ones kept, those between blended.
fn llama3(frequency: f32, factor: f32, low: f32, high: f32, context: f32) -> f32 {
    let turns = context * frequency / (2.0 * PI);
    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
    (1.0 - kept) * frequency / factor + kept * frequency
}

/// Index of the pair that makes `turns` turns over the original context.
fn yarn_border(turns: f32, head_dim: usize, theta: f32, context: usize) -> f32 {
    head_dim as f32 * (context as f32 / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln())
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
