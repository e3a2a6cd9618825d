//! Sixteen lanes of f32 on whatever the processor has.
//!
//! Numeric code is written once against [`Isa`] and compiled per instruction set; every operation of the
//! trait is exactly specified, so all of them produce the same bits. A kernel is a [`Kernel`] whose `run`
//! is always inlined into a function that enables the instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod math;
mod portable;
#[cfg(test)]
mod tests;

pub(crate) use math::{exp, sum, sum_of_squares};

pub(crate) const LANES: usize = 16;

/// Values of sixteen neighbouring outputs, tokens or dimensions.
pub(crate) type Lanes = [f32; LANES];

/// Sixteen outputs × four consecutive inputs, unsigned bytes.
pub(crate) type Quad = [u8; 64];

/// Operations on sixteen lanes. Float operations are IEEE single, rounded to nearest, `fma` rounds once.
pub(crate) trait Isa: Copy + Send + Sync + 'static {
    type F: Copy;
    type I: Copy;
    type Q: Copy;

    fn splat(self, value: f32) -> Self::F;
    fn load(self, from: &Lanes) -> Self::F;
    fn store(self, value: Self::F, to: &mut Lanes);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a` where `a > b`, else `b`.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a × b + c`.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` of integral lanes in `-126..=127`.
    fn pow2(self, n: Self::F) -> Self::F;
    fn widen_f16(self, from: &[u16; LANES]) -> Self::F;
    fn widen_bf16(self, from: &[u16; LANES]) -> Self::F;
    fn narrow_f16(self, value: Self::F, to: &mut [u16; LANES]);
    /// Lanes within ±127, rounded with ties to even.
    fn narrow_i8(self, value: Self::F) -> [i8; LANES];

    fn splat_i32(self, value: i32) -> Self::I;
    fn i32_to_f32(self, value: Self::I) -> Self::F;
    fn bytes(self, from: &Quad) -> Self::Q;
    fn low_nibbles(self, from: &Quad) -> Self::Q;
    fn high_nibbles(self, from: &Quad) -> Self::Q;
    /// Adds to lane `l` the exact dot product of its four bytes with the four signed bytes of `quad`,
    /// little endian.
    fn dot4(self, sum: Self::I, weights: Self::Q, quad: i32) -> Self::I;
    /// Asks for memory that will be read soon; changes nothing else.
    #[inline(always)]
    fn prefetch(self, _: &[u8]) {}

    /// Exchanges rows and lanes.
    fn transpose(self, rows: &mut [Self::F; LANES]);

    // The tree of [`sum`] for sixteen rows at once: folding rows 0 and 4, 8 and 12, then those two, and the
    // same from rows 1, 2 and 3, then pairs and last gives the sum of row `l` in lane `l`.

    /// Each half of `a`, then of `b`, added to the other: eight lanes of each.
    fn fold_halves(self, a: Self::F, b: Self::F) -> Self::F;
    /// Of results of `fold_halves`: the even quarters, of `a` then `b`, plus the odd ones.
    fn fold_quarters(self, a: Self::F, b: Self::F) -> Self::F;
    /// Within each quarter: lanes 0 and 2, then 1 and 3, added, alternating between `a` and `b`.
    fn fold_pairs(self, a: Self::F, b: Self::F) -> Self::F;
    /// Within each quarter: lanes 0 and 2, 1 and 3 added, of `a` then of `b`.
    fn fold_last(self, a: Self::F, b: Self::F) -> Self::F;
}

/// A piece of work to be compiled for each instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    fn run<S: Isa>(self, s: S);
}

/// The instruction set in use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cpu {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Cpu {
    /// What this processor can run, best first; the portable path is always there.
    pub(crate) fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            found.extend(avx512::Avx512::detect().map(Self::Avx512));
            found.extend(avx2::Avx2::detect().map(Self::Avx2));
        }
        found.push(Self::Portable);
        found
    }

    pub(crate) fn best() -> Self {
        Self::available().first().copied().unwrap_or(Self::Portable)
    }

    #[cfg(test)]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512-vnni",
        }
    }

    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) {
        match self {
            Self::Portable => kernel.run(portable::Portable),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => isa.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(isa) => isa.enter(kernel),
        }
    }
}
