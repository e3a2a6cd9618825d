//! Quantized weights, packed so that sixteen outputs are computed at once.
//!
//! A packed block holds 32 inputs of sixteen outputs: quads of codes (one register each), then scales and
//! minima by lane. Sums within a block are exact integers; blocks are added in order in f32. Nothing
//! depends on how many rows are computed together.

use half::f16;

use crate::simd::{Isa, LANES, Quad};

use super::ggml::{Block32, Codes};
use super::input::InputBlock;

/// How the codes of a block are stored.
pub(crate) trait Quads: Copy + Send + Sync + 'static {
    const ZERO: Self;
    fn set(&mut self, lane: usize, codes: Codes);
    fn get(&self, lane: usize) -> Codes;
    fn load<S: Isa>(&self, s: S) -> [S::Q; 8];
    /// −(zero point) × the sum of the inputs.
    fn centre(input: &InputBlock) -> i32;
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Nibbles([Quad; 4]);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes([Quad; 8]);

fn set_words(quads: &mut [Quad], lane: usize, words: &[u32]) {
    for (quad, word) in quads.iter_mut().zip(words) {
        quad[4 * lane..4 * lane + 4].copy_from_slice(&word.to_le_bytes());
    }
}

fn get_word(quad: &Quad, lane: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| quad[4 * lane + i]))
}

impl Quads for Nibbles {
    const ZERO: Self = Self([[0; 64]; 4]);

    fn set(&mut self, lane: usize, codes: Codes) {
        if let Codes::Nibbles(words) = codes {
            set_words(&mut self.0, lane, &words);
        }
    }

    fn get(&self, lane: usize) -> Codes {
        Codes::Nibbles(std::array::from_fn(|w| get_word(&self.0[w], lane)))
    }

    #[inline(always)]
    fn load<S: Isa>(&self, s: S) -> [S::Q; 8] {
        let [a, b, c, d] = &self.0;
        [
            s.low_nibbles(a),
            s.low_nibbles(b),
            s.low_nibbles(c),
            s.low_nibbles(d),
            s.high_nibbles(a),
            s.high_nibbles(b),
            s.high_nibbles(c),
            s.high_nibbles(d),
        ]
    }

    #[inline(always)]
    fn centre(input: &InputBlock) -> i32 {
        input.minus_8
    }
}

impl Quads for Bytes {
    const ZERO: Self = Self([[0; 64]; 8]);

    fn set(&mut self, lane: usize, codes: Codes) {
        if let Codes::Bytes(words) = codes {
            set_words(&mut self.0, lane, &words);
        }
    }

    fn get(&self, lane: usize) -> Codes {
        Codes::Bytes(std::array::from_fn(|w| get_word(&self.0[w], lane)))
    }

    #[inline(always)]
    fn load<S: Isa>(&self, s: S) -> [S::Q; 8] {
        let [a, b, c, d, e, f, g, h] = &self.0;
        [s.bytes(a), s.bytes(b), s.bytes(c), s.bytes(d), s.bytes(e), s.bytes(f), s.bytes(g), s.bytes(h)]
    }

    #[inline(always)]
    fn centre(input: &InputBlock) -> i32 {
        input.minus_128[2]
    }
}

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
    /// Adds the block's part of the dot product to `sum`.
    fn add<S: Isa, Q: Quads>(
        s: S,
        sum: S::F,
        quads: &[S::Q; 8],
        loaded: Self::Loaded<S>,
        input: &InputBlock,
    ) -> S::F;
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

#[inline(always)]
fn dot<S: Isa>(s: S, start: i32, quads: &[S::Q], inputs: &[i32]) -> S::I {
    let mut sum = s.splat_i32(start);
    for (quad, input) in quads.iter().zip(inputs) {
        sum = s.dot4(sum, *quad, *input);
    }
    sum
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
    fn add<S: Isa, Q: Quads>(s: S, sum: S::F, quads: &[S::Q; 8], scales: S::F, input: &InputBlock) -> S::F {
        let dot = s.i32_to_f32(dot(s, Q::centre(input), quads, &input.quads));
        s.fma(dot, s.mul(scales, s.splat(input.scale)), sum)
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
    fn add<S: Isa, Q: Quads>(
        s: S,
        sum: S::F,
        quads: &[S::Q; 8],
        (scales, mins): (S::F, S::F),
        input: &InputBlock,
    ) -> S::F {
        let dot = s.i32_to_f32(dot(s, 0, quads, &input.quads));
        let sum = s.fma(dot, s.mul(scales, s.splat(input.scale)), sum);
        s.fma(mins, s.splat(input.sum), sum)
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
    fn add<S: Isa, Q: Quads>(
        s: S,
        sum: S::F,
        quads: &[S::Q; 8],
        scales: [S::F; 2],
        input: &InputBlock,
    ) -> S::F {
        let first = s.i32_to_f32(dot(s, input.minus_128[0], &quads[..4], &input.quads[..4]));
        let second = s.i32_to_f32(dot(s, input.minus_128[1], &quads[4..], &input.quads[4..]));
        let sum = s.fma(first, s.mul(scales[0], s.splat(input.scale)), sum);
        s.fma(second, s.mul(scales[1], s.splat(input.scale)), sum)
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
        inputs: [&InputBlock; R],
    ) {
        let quads = self.quads.load(s);
        let loaded = self.scaling.load(s);
        for (sum, input) in sums.iter_mut().zip(inputs) {
            *sum = C::add::<S, Q>(s, *sum, &quads, loaded, input);
        }
    }
}
