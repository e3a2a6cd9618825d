//! Quantized weights, packed so that sixteen outputs are computed at once.
//!
//! A packed block holds 32 inputs of sixteen outputs: quads of codes (one register each), then scales and
//! minima by lane. Sums within a block are exact integers; blocks are added in order in f32. Nothing
//! depends on how many rows are computed together.

use half::f16;

use crate::simd::{Isa, LANES};

use super::ggml::Block32;
use super::input::InputBlock;
use super::quads::Quads;

/// A scale or minimum as stored.
pub(crate) trait Factor: Copy + Send + Sync + 'static {
    const ZERO: Self;
    fn pack(value: f32) -> Self;
    fn unpack(self) -> f32;
    fn load<S: Isa>(s: S, from: &[Self; LANES]) -> S::F;
}

impl Factor for f32 {
    const ZERO: Self = 0.0;

    fn pack(value: f32) -> Self {
        value
    }

    fn unpack(self) -> f32 {
        self
    }

    #[inline(always)]
    fn load<S: Isa>(s: S, from: &[Self; LANES]) -> S::F {
        s.load(from)
    }
}

/// Bits of an f16, for formats whose factors are f16 in the file.
impl Factor for u16 {
    const ZERO: Self = 0;

    fn pack(value: f32) -> Self {
        f16::from_f32(value).to_bits()
    }

    fn unpack(self) -> f32 {
        f16::from_bits(self).to_f32()
    }

    #[inline(always)]
    fn load<S: Isa>(s: S, from: &[Self; LANES]) -> S::F {
        s.widen_f16(from)
    }
}

/// How codes become values.
pub(crate) trait Scaling: Copy + Send + Sync + 'static {
    const ZERO: Self;
    type Loaded<S: Isa>: Copy;
    fn set(&mut self, lane: usize, block: &Block32);
    /// Scales and minimum of a lane.
    fn get(&self, lane: usize) -> ([f32; 2], Option<f32>);
    fn load<S: Isa>(&self, s: S) -> Self::Loaded<S>;
    /// Adds the block's part of the dot products of `R` rows to their sums.
    fn add<S: Isa, Q: Quads, const R: usize>(
        s: S,
        sums: &mut [S::F; R],
        quads: &[S::Q; 8],
        loaded: Self::Loaded<S>,
        inputs: &[InputBlock; R],
    );
}

/// `scale × (code − centre)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Centred<F> {
    scales: [F; LANES],
}

/// `scale × code + min`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shifted<F> {
    scales: [F; LANES],
    mins: [F; LANES],
}

/// `scale × (code − centre)`, a scale for each sixteen inputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Halves {
    scales: [[f32; LANES]; 2],
}

/// Exact dot products of `R` rows with neighbouring quads, from that of input `first` on. Row by row within
/// a quad: each sum waits for its own last addition, and the other rows fill the time.
#[inline(always)]
fn dots<S: Isa, const R: usize>(
    s: S,
    quads: &[S::Q],
    first: usize,
    starts: [i32; R],
    inputs: &[InputBlock; R],
) -> [S::F; R] {
    let mut sums = [s.splat_i32(0); R];
    for (sum, start) in sums.iter_mut().zip(starts) {
        *sum = s.splat_i32(start);
    }
    for (i, quad) in quads.iter().enumerate() {
        for r in 0..R {
            sums[r] = s.dot4(sums[r], *quad, inputs[r].quads[first + i]);
        }
    }
    let mut dots = [s.splat(0.0); R];
    for r in 0..R {
        dots[r] = s.i32_to_f32(sums[r]);
    }
    dots
}

impl<F: Factor> Scaling for Centred<F> {
    const ZERO: Self = Self { scales: [F::ZERO; LANES] };
    type Loaded<S: Isa> = S::F;

    fn set(&mut self, lane: usize, block: &Block32) {
        self.scales[lane] = F::pack(block.scales[0]);
    }

    fn get(&self, lane: usize) -> ([f32; 2], Option<f32>) {
        ([self.scales[lane].unpack(); 2], None)
    }

    #[inline(always)]
    fn load<S: Isa>(&self, s: S) -> S::F {
        F::load(s, &self.scales)
    }

    #[inline(always)]
    fn add<S: Isa, Q: Quads, const R: usize>(
        s: S,
        sums: &mut [S::F; R],
        quads: &[S::Q; 8],
        scales: S::F,
        inputs: &[InputBlock; R],
    ) {
        let dots = dots(s, quads, 0, inputs.each_ref().map(Q::centre), inputs);
        for r in 0..R {
            sums[r] = s.fma(dots[r], s.mul(scales, s.splat(inputs[r].scale)), sums[r]);
        }
    }
}

impl<F: Factor> Scaling for Shifted<F> {
    const ZERO: Self = Self { scales: [F::ZERO; LANES], mins: [F::ZERO; LANES] };
    type Loaded<S: Isa> = (S::F, S::F);

    fn set(&mut self, lane: usize, block: &Block32) {
        self.scales[lane] = F::pack(block.scales[0]);
        self.mins[lane] = F::pack(block.min.unwrap_or(0.0));
    }

    fn get(&self, lane: usize) -> ([f32; 2], Option<f32>) {
        ([self.scales[lane].unpack(); 2], Some(self.mins[lane].unpack()))
    }

    #[inline(always)]
    fn load<S: Isa>(&self, s: S) -> (S::F, S::F) {
        (F::load(s, &self.scales), F::load(s, &self.mins))
    }

    #[inline(always)]
    fn add<S: Isa, Q: Quads, const R: usize>(
        s: S,
        sums: &mut [S::F; R],
        quads: &[S::Q; 8],
        (scales, mins): (S::F, S::F),
        inputs: &[InputBlock; R],
    ) {
        let dots = dots(s, quads, 0, [0; R], inputs);
        for r in 0..R {
            let sum = s.fma(dots[r], s.mul(scales, s.splat(inputs[r].scale)), sums[r]);
            sums[r] = s.fma(mins, s.splat(inputs[r].sum), sum);
        }
    }
}

impl Scaling for Halves {
    const ZERO: Self = Self { scales: [[0.0; LANES]; 2] };
    type Loaded<S: Isa> = [S::F; 2];

    fn set(&mut self, lane: usize, block: &Block32) {
        for (scales, scale) in self.scales.iter_mut().zip(block.scales) {
            scales[lane] = scale;
        }
    }

    fn get(&self, lane: usize) -> ([f32; 2], Option<f32>) {
        (self.scales.map(|scales| scales[lane]), None)
    }

    #[inline(always)]
    fn load<S: Isa>(&self, s: S) -> [S::F; 2] {
        [s.load(&self.scales[0]), s.load(&self.scales[1])]
    }

    #[inline(always)]
    fn add<S: Isa, Q: Quads, const R: usize>(
        s: S,
        sums: &mut [S::F; R],
        quads: &[S::Q; 8],
        scales: [S::F; 2],
        inputs: &[InputBlock; R],
    ) {
        let first = dots(s, &quads[..4], 0, inputs.each_ref().map(|input| input.minus_128[0]), inputs);
        let second = dots(s, &quads[4..], 4, inputs.each_ref().map(|input| input.minus_128[1]), inputs);
        for r in 0..R {
            let scale = s.splat(inputs[r].scale);
            let sum = s.fma(first[r], s.mul(scales[0], scale), sums[r]);
            sums[r] = s.fma(second[r], s.mul(scales[1], scale), sum);
        }
    }
}

/// 32 inputs of sixteen outputs.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
pub(crate) struct Packed<Q, C> {
    quads: Q,
    scaling: C,
}

impl<Q: Quads, C: Scaling> Packed<Q, C> {
    pub(crate) const ZERO: Self = Self { quads: Q::ZERO, scaling: C::ZERO };

    #[inline]
    pub(crate) fn set(&mut self, lane: usize, block: &Block32) {
        self.quads.set(lane, block.codes);
        self.scaling.set(lane, block);
    }

    pub(crate) fn get(&self, lane: usize) -> Block32 {
        let (scales, min) = self.scaling.get(lane);
        Block32 { codes: self.quads.get(lane), scales, min }
    }

    /// Adds this block's part to the sums of `R` rows.
    #[inline(always)]
    pub(crate) fn accumulate<S: Isa, const R: usize>(
        &self,
        s: S,
        sums: &mut [S::F; R],
        inputs: &[InputBlock; R],
    ) {
        let quads = self.quads.load(s);
        let loaded = self.scaling.load(s);
        C::add::<S, Q, R>(s, sums, &quads, loaded, inputs);
    }
}
