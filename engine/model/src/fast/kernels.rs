//! Row-wise pieces of a layer.

use half::f16;

use crate::matrix::Output;
use crate::simd::{Isa, Kernel, LANES, exp, sum_of_squares};

/// RMS norm in place.
pub(super) struct Normalize<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) weight: &'a [f32],
    pub(super) eps: f32,
}

impl Kernel for Normalize<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let mean = sum_of_squares(s, self.values) / self.values.len() as f32;
        let scale = 1.0 / (mean + self.eps).sqrt();
        for (value, weight) in self.values.iter_mut().zip(self.weight) {
            *value = *value * scale * weight;
        }
    }
}

/// `silu(gate) × up` of one row.
pub(super) struct Activate<'a> {
    pub(super) gate: &'a Output,
    pub(super) up: &'a Output,
    pub(super) row: usize,
    pub(super) out: &'a mut [f32],
}

impl Kernel for Activate<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let one = s.splat(1.0);
        for (group, out) in self.out.chunks_mut(LANES).enumerate() {
            let gate = s.load(self.gate.lanes(self.row, group));
            let up = s.load(self.up.lanes(self.row, group));
            let sigmoid_inverse = s.add(one, exp(s, s.sub(s.splat(0.0), gate)));
            let mut lanes = [0.0; LANES];
            s.store(s.mul(s.div(gate, sigmoid_inverse), up), &mut lanes);
            out.copy_from_slice(&lanes[..out.len()]);
        }
    }
}

/// Values of a head as little-endian f16.
pub(super) struct Narrow<'a> {
    pub(super) values: &'a [f32],
    pub(super) to: &'a mut [u8],
}

impl Kernel for Narrow<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let (whole, rest) = self.values.as_chunks::<LANES>();
        let (whole_to, rest_to) = self.to.split_at_mut(whole.len() * LANES * 2);
        for (lanes, to) in whole.iter().zip(whole_to.chunks_exact_mut(2 * LANES)) {
            let mut halves = [0; LANES];
            s.narrow_f16(s.load(lanes), &mut halves);
            for (half, to) in halves.into_iter().zip(to.as_chunks_mut::<2>().0) {
                *to = half.to_le_bytes();
            }
        }
        for (value, to) in rest.iter().zip(rest_to.as_chunks_mut::<2>().0) {
            *to = f16::from_f32(*value).to_le_bytes();
        }
    }
}
