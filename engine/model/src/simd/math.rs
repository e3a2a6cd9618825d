//! Functions of sixteen lanes built from the exact operations.

use super::{Isa, LANES, Lanes};

/// `e^x`, within 2 units in the last place for `x` in `-87..=88`; beyond, as if `x` were the border.
#[inline(always)]
pub(crate) fn exp<S: Isa>(s: S, x: S::F) -> S::F {
    const LOWEST: f32 = -87.0;
    const HIGHEST: f32 = 88.0;
    // ln 2 in two parts; n × LN2_HIGH is exact for every n that occurs.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];
    let x = s.max(x, s.splat(LOWEST));
    let x = s.sub(s.splat(0.0), s.max(s.sub(s.splat(0.0), x), s.splat(-HIGHEST)));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(COEFFICIENTS[0]);
    for c in &COEFFICIENTS[1..] {
        p = s.fma(p, r, s.splat(*c));
    }
    let p = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    s.mul(p, s.pow2(n))
}

/// Sum of the lanes in a fixed tree: halves are added until one value is left.
#[inline(always)]
pub(crate) fn sum<S: Isa>(s: S, value: S::F) -> f32 {
    let mut lanes: Lanes = [0.0; LANES];
    s.store(value, &mut lanes);
    let eight: [f32; 8] = std::array::from_fn(|l| lanes[l] + lanes[l + 8]);
    let four: [f32; 4] = std::array::from_fn(|l| eight[l] + eight[l + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Sum of squares: sixteen partial sums over the whole lanes, their tree, then the rest in order.
#[inline(always)]
pub(crate) fn sum_of_squares<S: Isa>(s: S, values: &[f32]) -> f32 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut partial = s.splat(0.0);
    for lanes in whole {
        let v = s.load(lanes);
        partial = s.fma(v, v, partial);
    }
    rest.iter().fold(sum(s, partial), |total, v| v.mul_add(*v, total))
}
