//! Numbers from a seed: splitmix64, one stream per tensor.

use half::bf16;

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// Element `i` is `centre + spread · u`, with `u` the `i`-th number of the tensor's stream in [-1, 1), in
/// f64, rounded to f32 and then to bf16 (to nearest even).
pub(super) fn elements(seed: u64, name: &str, shape: &[usize], tied: bool) -> Vec<f32> {
    let (centre, spread) = distribution(name, shape, tied);
    let stream = seed ^ fnv1a(name);
    let count = shape.iter().product::<usize>() as u64;
    (1..=count)
        .map(|i| {
            let bits = mix(stream.wrapping_add(i.wrapping_mul(GAMMA)));
            let unit = (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
            bf16::from_f32((centre + spread * unit) as f32).to_f32()
        })
        .collect()
}

/// Chosen so that activations keep their size from layer to layer, attention is uneven, and greedy tokens
/// are far from ties.
fn distribution(name: &str, shape: &[usize], tied: bool) -> (f64, f64) {
    let inputs = shape.last().copied().unwrap_or(1) as f64;
    let gain = if name.contains("norm") {
        return (1.0, 0.25);
    } else if name.contains("bias") {
        return (0.0, 0.5);
    } else if name.contains("embed_tokens") {
        // With a tied head a large embedding would only repeat its own token.
        return (0.0, if tied { 0.25 } else { 1.0 });
    } else if name.contains("q_proj") || name.contains("k_proj") {
        1.5
    } else if name.contains("lm_head") {
        3.0
    } else {
        1.0
    };
    (0.0, gain * (3.0 / inputs).sqrt())
}

/// The finalizer of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}
