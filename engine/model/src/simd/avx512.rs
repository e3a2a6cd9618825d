//! AVX-512 with VNNI: one register holds the sixteen lanes, `vpdpbusd` is `dot4`.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512, __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T1, _mm_prefetch,
    _mm_storeu_si128, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_ps,
    _mm512_and_si512, _mm512_castsi512_ps, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtph_ps, _mm512_cvtps_epi32, _mm512_cvtps_ph, _mm512_cvttps_epi32, _mm512_div_ps,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_ps, _mm512_mul_ps,
    _mm512_roundscale_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_shuffle_f32x4,
    _mm512_shuffle_ps, _mm512_slli_epi32, _mm512_srli_epi16, _mm512_storeu_ps, _mm512_sub_ps,
    _mm512_unpackhi_ps, _mm512_unpacklo_ps,
};

use super::{Isa, Kernel, LANES, Lanes, Quad};

/// Proof that the processor has the features; made by `detect` alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }

    #[inline]
    pub(crate) fn enter<K: Kernel>(self, kernel: K) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn inner<K: Kernel>(isa: Avx512, kernel: K) {
            kernel.run(isa);
        }
        // SAFETY: `self` exists, so the features were detected.
        unsafe { inner(self, kernel) }
    }
}

/// Runs intrinsics that need the features of [`Avx512`].
macro_rules! with_features {
    ($e:expr) => {
        // SAFETY: the method takes an `Avx512`, which exists only where the features were detected, and
        // memory operands are references to arrays of exactly the size accessed.
        unsafe { $e }
    };
}

impl Isa for Avx512 {
    type F = __m512;
    type I = __m512i;
    type Q = __m512i;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        with_features!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> __m512 {
        with_features!(_mm512_loadu_ps(from.as_ptr()))
    }

    #[inline(always)]
    fn store(self, value: __m512, to: &mut Lanes) {
        with_features!(_mm512_storeu_ps(to.as_mut_ptr(), value));
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        with_features!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        with_features!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        with_features!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        with_features!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        with_features!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        with_features!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        with_features!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }

    #[inline(always)]
    fn pow2(self, n: __m512) -> __m512 {
        with_features!({
            let exponent = _mm512_add_epi32(_mm512_cvttps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn widen_f16(self, from: &[u16; LANES]) -> __m512 {
        with_features!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
    }

    #[inline(always)]
    fn widen_bf16(self, from: &[u16; LANES]) -> __m512 {
        with_features!({
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        })
    }

    #[inline(always)]
    fn narrow_f16(self, value: __m512, to: &mut [u16; LANES]) {
        with_features!({
            let halves = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), halves);
        });
    }

    #[inline(always)]
    fn narrow_i8(self, value: __m512) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        with_features!({
            let narrow = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(value));
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), narrow);
        });
        bytes
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> __m512i {
        with_features!(_mm512_set1_epi32(value))
    }

    #[inline(always)]
    fn i32_to_f32(self, value: __m512i) -> __m512 {
        with_features!(_mm512_cvtepi32_ps(value))
    }

    #[inline(always)]
    fn bytes(self, from: &Quad) -> __m512i {
        with_features!(_mm512_loadu_si512(from.as_ptr().cast()))
    }

    #[inline(always)]
    fn low_nibbles(self, from: &Quad) -> __m512i {
        with_features!(_mm512_and_si512(self.bytes(from), _mm512_set1_epi8(15)))
    }

    #[inline(always)]
    fn high_nibbles(self, from: &Quad) -> __m512i {
        with_features!({
            let shifted = _mm512_srli_epi16::<4>(self.bytes(from));
            _mm512_and_si512(shifted, _mm512_set1_epi8(15))
        })
    }

    #[inline(always)]
    fn dot4(self, sum: __m512i, weights: __m512i, quad: i32) -> __m512i {
        with_features!(_mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(quad)))
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8]) {
        for line in bytes.chunks(64) {
            with_features!(_mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()));
        }
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [__m512; LANES]) {
        with_features!({
            // Within quarters of 4 lanes: pairs of rows, then pairs of pairs.
            let mut four = *rows;
            for r in (0..LANES).step_by(4) {
                let low01 = _mm512_unpacklo_ps(rows[r], rows[r + 1]);
                let high01 = _mm512_unpackhi_ps(rows[r], rows[r + 1]);
                let low23 = _mm512_unpacklo_ps(rows[r + 2], rows[r + 3]);
                let high23 = _mm512_unpackhi_ps(rows[r + 2], rows[r + 3]);
                four[r] = _mm512_shuffle_ps::<0x44>(low01, low23);
                four[r + 1] = _mm512_shuffle_ps::<0xee>(low01, low23);
                four[r + 2] = _mm512_shuffle_ps::<0x44>(high01, high23);
                four[r + 3] = _mm512_shuffle_ps::<0xee>(high01, high23);
            }
            // four[4b + c] holds, in quarter q, column 4q + c of rows 4b..4b+4: exchange b and q.
            for c in 0..4 {
                let even01 = _mm512_shuffle_f32x4::<0x88>(four[c], four[c + 4]);
                let odd01 = _mm512_shuffle_f32x4::<0xdd>(four[c], four[c + 4]);
                let even23 = _mm512_shuffle_f32x4::<0x88>(four[c + 8], four[c + 12]);
                let odd23 = _mm512_shuffle_f32x4::<0xdd>(four[c + 8], four[c + 12]);
                rows[c] = _mm512_shuffle_f32x4::<0x88>(even01, even23);
                rows[c + 4] = _mm512_shuffle_f32x4::<0x88>(odd01, odd23);
                rows[c + 8] = _mm512_shuffle_f32x4::<0xdd>(even01, even23);
                rows[c + 12] = _mm512_shuffle_f32x4::<0xdd>(odd01, odd23);
            }
        });
    }

    #[inline(always)]
    fn fold_halves(self, a: __m512, b: __m512) -> __m512 {
        with_features!(_mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b)))
    }

    #[inline(always)]
    fn fold_quarters(self, a: __m512, b: __m512) -> __m512 {
        with_features!(_mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)))
    }

    #[inline(always)]
    fn fold_pairs(self, a: __m512, b: __m512) -> __m512 {
        with_features!(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)))
    }

    #[inline(always)]
    fn fold_last(self, a: __m512, b: __m512) -> __m512 {
        with_features!(_mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xee>(a, b)))
    }
}
