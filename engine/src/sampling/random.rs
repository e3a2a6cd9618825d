//! Randomness as a function of seed and position, so that neither the batch, a preemption, nor a replay on
//! another instance changes what is drawn.

/// Uniform in `0..1`, with 53 bits.
pub(super) fn uniform(seed: u64, index: u64) -> f64 {
    let bits = mix(mix(seed).wrapping_add(mix(index ^ 0x5348_4f41_4c00_0001)));
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// `SplitMix64`'s output function (Steele, Lea, Flood 2014): each input bit flips each output bit with
/// probability one half.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
