//! The same formulas in f64 on the CPU: obvious rather than fast.

use crate::rope::Pairing;

/// Rows of `weight.len()` elements, each `x / sqrt(mean(x²) + eps) · weight`.
pub fn rmsnorm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    x.chunks(weight.len())
        .flat_map(|row| {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (mean + eps).sqrt();
            row.iter().zip(weight).map(move |(x, weight)| x * scale * weight).collect::<Vec<_>>()
        })
        .collect()
}

/// Rows of `2·width`, eight gates and their eight ups in turn, to rows of `width`.
pub fn silu_mul(gate_up: &[f64]) -> Vec<f64> {
    let silu = |x: f64| x / (1.0 + (-x).exp());
    gate_up.chunks(16).flat_map(|block| (0..8).map(move |i| silu(block[i]) * block[8 + i])).collect()
}

/// `x · weightᵀ`: rows of `inputs` elements into rows of one output per row of the weight.
pub fn product(x: &[f64], weight: &[f64], inputs: usize) -> Vec<f64> {
    let row = |x: &[f64]| {
        weight.chunks(inputs).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect::<Vec<f64>>()
    };
    x.chunks(inputs).flat_map(row).collect()
}

/// Lowest index of the largest number; `u32::MAX` if there is none.
pub fn argmax(row: &[f64]) -> u32 {
    let mut best: Option<(usize, f64)> = None;
    for (index, value) in row.iter().copied().enumerate().filter(|(_, value)| !value.is_nan()) {
        if best.is_none_or(|(_, top)| value > top) {
            best = Some((index, value));
        }
    }
    best.map_or(u32::MAX, |(index, _)| index as u32)
}

/// What is added to `token`'s logit, over the temperature, before the largest wins: Gumbel noise, a function of the seed,
/// the draw's index and the token.
pub fn gumbel(seed: u64, index: u32, token: u32) -> f64 {
    let key = mix(seed.wrapping_add(mix(u64::from(index) ^ 0x5348_4f41_4c00_0002)));
    let bits = mix(key ^ mix(u64::from(token))) >> 24;
    let uniform = (bits as f64 + 0.5) / (1_u64 << 40) as f64;
    -(-(-uniform).ln_1p()).ln()
}

/// `SplitMix64`'s output function.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Rotates the first `2·cos.len()` elements of one head by one position's cosines and sines.
pub fn rope(head: &mut [f64], cos: &[f64], sin: &[f64], pairing: Pairing) {
    let half = cos.len();
    for i in 0..half {
        let (first, second) = match pairing {
            Pairing::Half => (i, i + half),
            Pairing::Interleaved => (2 * i, 2 * i + 1),
        };
        let (a, b) = (head[first], head[second]);
        head[first] = a * cos[i] - b * sin[i];
        head[second] = b * cos[i] + a * sin[i];
    }
}

/// `softmax(scale · q·K) V` over rows of `q.len()` elements; zeros over none.
pub fn attention(q: &[f64], keys: &[f64], values: &[f64], scale: f64) -> Vec<f64> {
    let dot = |key: &[f64]| q.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * scale;
    let scores: Vec<f64> = keys.chunks(q.len()).map(dot).collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut out = vec![0.0; q.len()];
    for (weight, value) in weights.iter().zip(values.chunks(q.len())) {
        for (out, value) in out.iter_mut().zip(value) {
            *out += weight / sum * value;
        }
    }
    out
}
