//! AVX2 with FMA and F16C: two registers hold the sixteen lanes.
//!
//! No closures around intrinsics: one that is not inlined leaves every instruction in it a call.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m256i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T1, _mm_loadu_si128,
    _mm_prefetch, _mm_storeu_si128, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_castsi256_ps,
    _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_cvtps_ph,
    _mm256_cvttps_epi32, _mm256_div_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_max_ps, _mm256_mul_ps, _mm256_permute2f128_ps, _mm256_round_ps,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_shuffle_ps,
    _mm256_slli_epi16, _mm256_slli_epi32, _mm256_srai_epi16, _mm256_srli_epi16, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm256_sub_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};

use super::{Isa, Kernel, LANES, Lanes, Quad};

/// Proof that the processor has the features; made by `detect` alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }

    #[inline]
    pub(crate) fn enter<K: Kernel>(self, kernel: K) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inner<K: Kernel>(isa: Avx2, kernel: K) {
            kernel.run(isa);
        }
        // SAFETY: `self` exists, so the features were detected.
        unsafe { inner(self, kernel) }
    }
}

/// Runs intrinsics that need the features of [`Avx2`].
macro_rules! with_features {
    ($e:expr) => {
        // SAFETY: the method takes an `Avx2`, which exists only where the features were detected, and
        // memory operands lie inside the referenced array: its first or its second half.
        unsafe { $e }
    };
}

/// Applies an intrinsic to both halves.
macro_rules! halves {
    ($f:ident($($v:expr),+)) => {
        with_features!([$f($($v[0]),+), $f($($v[1]),+)])
    };
}

impl Isa for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type Q = [__m256i; 2];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [with_features!(_mm256_set1_ps(value)); 2]
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Self::F {
        with_features!([_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))])
    }

    #[inline(always)]
    fn store(self, value: Self::F, to: &mut Lanes) {
        with_features!({
            _mm256_storeu_ps(to.as_mut_ptr(), value[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), value[1]);
        });
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        halves!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        with_features!([_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])])
    }

    #[inline(always)]
    fn pow2(self, n: Self::F) -> Self::F {
        with_features!({
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_add_epi32(_mm256_cvttps_epi32(n[0]), bias);
            let high = _mm256_add_epi32(_mm256_cvttps_epi32(n[1]), bias);
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(high)),
            ]
        })
    }

    #[inline(always)]
    fn widen_f16(self, from: &[u16; LANES]) -> Self::F {
        with_features!({
            let halves =
                [_mm_loadu_si128(from.as_ptr().cast()), _mm_loadu_si128(from.as_ptr().add(8).cast())];
            [_mm256_cvtph_ps(halves[0]), _mm256_cvtph_ps(halves[1])]
        })
    }

    #[inline(always)]
    fn widen_bf16(self, from: &[u16; LANES]) -> Self::F {
        with_features!({
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().add(8).cast()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        })
    }

    #[inline(always)]
    fn narrow_f16(self, value: Self::F, to: &mut [u16; LANES]) {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
        with_features!({
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<NEAREST>(value[0]));
            _mm_storeu_si128(to.as_mut_ptr().add(8).cast(), _mm256_cvtps_ph::<NEAREST>(value[1]));
        });
    }

    #[inline(always)]
    fn narrow_i8(self, value: Self::F) -> [i8; LANES] {
        let mut wide = [0_i32; LANES];
        with_features!({
            _mm256_storeu_si256(wide.as_mut_ptr().cast(), _mm256_cvtps_epi32(value[0]));
            _mm256_storeu_si256(wide.as_mut_ptr().add(8).cast(), _mm256_cvtps_epi32(value[1]));
        });
        wide.map(|v| v as i8)
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> Self::I {
        [with_features!(_mm256_set1_epi32(value)); 2]
    }

    #[inline(always)]
    fn i32_to_f32(self, value: Self::I) -> Self::F {
        halves!(_mm256_cvtepi32_ps(value))
    }

    #[inline(always)]
    fn bytes(self, from: &Quad) -> Self::Q {
        with_features!([
            _mm256_loadu_si256(from.as_ptr().cast()),
            _mm256_loadu_si256(from.as_ptr().add(32).cast())
        ])
    }

    #[inline(always)]
    fn low_nibbles(self, from: &Quad) -> Self::Q {
        let [low, high] = self.bytes(from);
        with_features!({
            let mask = _mm256_set1_epi8(15);
            [_mm256_and_si256(low, mask), _mm256_and_si256(high, mask)]
        })
    }

    #[inline(always)]
    fn high_nibbles(self, from: &Quad) -> Self::Q {
        let [low, high] = self.bytes(from);
        with_features!({
            let mask = _mm256_set1_epi8(15);
            [
                _mm256_and_si256(_mm256_srli_epi16::<4>(low), mask),
                _mm256_and_si256(_mm256_srli_epi16::<4>(high), mask),
            ]
        })
    }

    /// Even and odd bytes are widened to 16 bits first: the byte multiply of AVX2 saturates.
    #[inline(always)]
    fn dot4(self, sum: Self::I, weights: Self::Q, quad: i32) -> Self::I {
        with_features!({
            let inputs = _mm256_set1_epi32(quad);
            let even_inputs = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(inputs));
            let odd_inputs = _mm256_srai_epi16::<8>(inputs);
            let bytes = _mm256_set1_epi16(255);
            let even_low = _mm256_madd_epi16(_mm256_and_si256(weights[0], bytes), even_inputs);
            let odd_low = _mm256_madd_epi16(_mm256_srli_epi16::<8>(weights[0]), odd_inputs);
            let even_high = _mm256_madd_epi16(_mm256_and_si256(weights[1], bytes), even_inputs);
            let odd_high = _mm256_madd_epi16(_mm256_srli_epi16::<8>(weights[1]), odd_inputs);
            [
                _mm256_add_epi32(sum[0], _mm256_add_epi32(even_low, odd_low)),
                _mm256_add_epi32(sum[1], _mm256_add_epi32(even_high, odd_high)),
            ]
        })
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8]) {
        for line in bytes.chunks(64) {
            with_features!(_mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()));
        }
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [Self::F; LANES]) {
        let mut from = [[0.0; LANES]; LANES];
        for (row, to) in rows.iter().zip(&mut from) {
            self.store(*row, to);
        }
        for (r, row) in rows.iter_mut().enumerate() {
            *row = self.load(&std::array::from_fn(|l| from[l][r]));
        }
    }

    #[inline(always)]
    fn fold_halves(self, a: Self::F, b: Self::F) -> Self::F {
        with_features!([_mm256_add_ps(a[0], a[1]), _mm256_add_ps(b[0], b[1])])
    }

    #[inline(always)]
    fn fold_quarters(self, a: Self::F, b: Self::F) -> Self::F {
        with_features!({
            let first = _mm256_permute2f128_ps::<0x20>(a[0], a[1]);
            let second = _mm256_permute2f128_ps::<0x20>(b[0], b[1]);
            [
                _mm256_add_ps(first, _mm256_permute2f128_ps::<0x31>(a[0], a[1])),
                _mm256_add_ps(second, _mm256_permute2f128_ps::<0x31>(b[0], b[1])),
            ]
        })
    }

    #[inline(always)]
    fn fold_pairs(self, a: Self::F, b: Self::F) -> Self::F {
        let (low, high) = (halves!(_mm256_unpacklo_ps(a, b)), halves!(_mm256_unpackhi_ps(a, b)));
        self.add(low, high)
    }

    #[inline(always)]
    fn fold_last(self, a: Self::F, b: Self::F) -> Self::F {
        with_features!({
            let first =
                _mm256_add_ps(_mm256_shuffle_ps::<0x44>(a[0], b[0]), _mm256_shuffle_ps::<0xee>(a[0], b[0]));
            let second =
                _mm256_add_ps(_mm256_shuffle_ps::<0x44>(a[1], b[1]), _mm256_shuffle_ps::<0xee>(a[1], b[1]));
            [first, second]
        })
    }
}
