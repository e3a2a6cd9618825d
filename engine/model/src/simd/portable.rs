//! The specification of every operation, and the path for processors without AVX2.

use half::{bf16, f16};

use super::{Isa, LANES, Lanes, Quad};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn map(f: impl Fn(usize) -> f32) -> Lanes {
    std::array::from_fn(f)
}

impl Isa for Portable {
    type F = Lanes;
    type I = [i32; LANES];
    type Q = Quad;

    #[inline(always)]
    fn splat(self, value: f32) -> Lanes {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Lanes {
        *from
    }

    #[inline(always)]
    fn store(self, value: Lanes, to: &mut Lanes) {
        *to = value;
    }

    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        map(|l| a[l] + b[l])
    }

    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        map(|l| a[l] - b[l])
    }

    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        map(|l| a[l] * b[l])
    }

    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        map(|l| a[l] / b[l])
    }

    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        map(|l| if a[l] > b[l] { a[l] } else { b[l] })
    }

    #[inline(always)]
    fn fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        map(|l| a[l].mul_add(b[l], c[l]))
    }

    #[inline(always)]
    fn round(self, a: Lanes) -> Lanes {
        map(|l| a[l].round_ties_even())
    }

    #[inline(always)]
    fn pow2(self, n: Lanes) -> Lanes {
        map(|l| f32::from_bits(((n[l] as i32 + 127) << 23) as u32))
    }

    #[inline(always)]
    fn widen_f16(self, from: &[u16; LANES]) -> Lanes {
        map(|l| f16::from_bits(from[l]).to_f32())
    }

    #[inline(always)]
    fn widen_bf16(self, from: &[u16; LANES]) -> Lanes {
        map(|l| bf16::from_bits(from[l]).to_f32())
    }

    #[inline(always)]
    fn narrow_f16(self, value: Lanes, to: &mut [u16; LANES]) {
        *to = std::array::from_fn(|l| f16::from_f32(value[l]).to_bits());
    }

    #[inline(always)]
    fn narrow_i8(self, value: Lanes) -> [i8; LANES] {
        std::array::from_fn(|l| value[l].round_ties_even() as i8)
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> [i32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn i32_to_f32(self, value: [i32; LANES]) -> Lanes {
        map(|l| value[l] as f32)
    }

    #[inline(always)]
    fn bytes(self, from: &Quad) -> Quad {
        *from
    }

    #[inline(always)]
    fn low_nibbles(self, from: &Quad) -> Quad {
        std::array::from_fn(|i| from[i] & 15)
    }

    #[inline(always)]
    fn high_nibbles(self, from: &Quad) -> Quad {
        std::array::from_fn(|i| from[i] >> 4)
    }

    #[inline(always)]
    fn dot4(self, sum: [i32; LANES], weights: Quad, quad: i32) -> [i32; LANES] {
        let inputs = quad.to_le_bytes();
        std::array::from_fn(|l| {
            let products = (0..4).map(|k| i32::from(weights[4 * l + k]) * i32::from(inputs[k] as i8));
            sum[l] + products.sum::<i32>()
        })
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [Lanes; LANES]) {
        *rows = std::array::from_fn(|r| map(|l| rows[l][r]));
    }

    #[inline(always)]
    fn fold_halves(self, a: Lanes, b: Lanes) -> Lanes {
        map(|l| if l < 8 { a[l] + a[l + 8] } else { b[l - 8] + b[l] })
    }

    #[inline(always)]
    fn fold_quarters(self, a: Lanes, b: Lanes) -> Lanes {
        map(|l| {
            let from = if l < 8 { &a } else { &b };
            let first = l / 4 % 2 * 8 + l % 4;
            from[first] + from[first + 4]
        })
    }

    #[inline(always)]
    fn fold_pairs(self, a: Lanes, b: Lanes) -> Lanes {
        map(|l| {
            let from = if l % 2 == 0 { &a } else { &b };
            let first = l / 4 * 4 + l % 4 / 2;
            from[first] + from[first + 2]
        })
    }

    #[inline(always)]
    fn fold_last(self, a: Lanes, b: Lanes) -> Lanes {
        map(|l| {
            let from = if l % 4 < 2 { &a } else { &b };
            let first = l / 4 * 4 + l % 2;
            from[first] + from[first + 2]
        })
    }
}
