//! Softmax weights of a whole row.
//!
//! Plain arithmetic in a fixed order, so every machine draws the same token from the same logits, which a
//! C library's `exp` does not promise; and shaped so that the compiler vectorises it.

const LANES: usize = 8;

/// The largest logit and the lowest id that has it; `None` if all are negative infinity.
pub(super) fn largest(logits: &[f32]) -> Option<(f32, u32)> {
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = if *logit > *lane { *logit } else { *lane };
        }
    }
    let largest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let id = logits.iter().position(|logit| *logit >= largest)?;
    (largest > f32::NEG_INFINITY).then_some((largest, id as u32))
}

/// `exp((logit - largest) × scale)` of each logit.
pub(super) fn weights(logits: &[f32], largest: f32, scale: f32) -> Vec<f32> {
    logits.iter().map(|logit| exp((logit - largest) * scale)).collect()
}

/// Sum of weights, the same for equal input whatever the machine.
pub(super) fn sum(weights: &[f32]) -> f64 {
    let (chunks, rest) = weights.as_chunks::<LANES>();
    let mut lanes = [0.0_f64; LANES];
    for chunk in chunks {
        for (lane, weight) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*weight);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|weight| f64::from(*weight)).sum::<f64>()
}

/// e to the power of `x`, for `x` of at most 0, to 3 in 10^7; 0 below -87.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; the power of two goes into the exponent bits, e^r is a Taylor
/// polynomial. Adding 1.5·2^23 rounds to an integer and leaves it in the low bits.
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let tail = 1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0)));
    let power = 1.0 + r * (1.0 + r * (0.5 + r * tail));
    let bits = power.to_bits().wrapping_add(shifted.to_bits() << 23);
    if x > -87.0 { f32::from_bits(bits) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_exponential_and_vanish_far_below() {
        for step in 0..100_000 {
            let x = -0.000_86 * step as f32;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 3e-7, "exp({x})");
        }
        assert!(exp(0.0).to_bits() == 1.0_f32.to_bits());
        assert!(exp(-100.0).to_bits() == 0 && exp(f32::NEG_INFINITY).to_bits() == 0);
    }

    #[test]
    fn the_largest_is_found_wherever_it_is() {
        for length in [1, 7, 8, 9, 100] {
            for at in 0..length {
                let mut logits = vec![-1.0; length];
                logits[at] = 2.0;
                assert_eq!(largest(&logits).map(|(_, id)| id as usize), Some(at));
            }
        }
        assert!(largest(&[f32::NEG_INFINITY; 9]).is_none() && largest(&[]).is_none());
    }
}
