//! Float weights in their storage type, sixteen outputs beside each other for every input.

use half::{bf16, f16};

use crate::simd::{Isa, LANES};

/// One input of sixteen outputs.
pub(crate) trait FloatLanes: Copy + Send + Sync + 'static {
    const ZERO: Self;
    const BYTES: usize;
    /// `bytes` is one element as in the file, little endian.
    fn set(&mut self, lane: usize, bytes: &[u8]);
    fn get(&self, lane: usize) -> f32;
    fn load<S: Isa>(&self, s: S) -> S::F;
}

#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(crate) struct F32Lanes([f32; LANES]);

#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(crate) struct F16Lanes([u16; LANES]);

#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub(crate) struct Bf16Lanes([u16; LANES]);

impl FloatLanes for F32Lanes {
    const ZERO: Self = Self([0.0; LANES]);
    const BYTES: usize = 4;

    #[inline]
    fn set(&mut self, lane: usize, bytes: &[u8]) {
        self.0[lane] = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }

    fn get(&self, lane: usize) -> f32 {
        self.0[lane]
    }

    #[inline(always)]
    fn load<S: Isa>(&self, s: S) -> S::F {
        s.load(&self.0)
    }
}

impl FloatLanes for F16Lanes {
    const ZERO: Self = Self([0; LANES]);
    const BYTES: usize = 2;

    #[inline]
    fn set(&mut self, lane: usize, bytes: &[u8]) {
        self.0[lane] = u16::from_le_bytes([bytes[0], bytes[1]]);
    }

    fn get(&self, lane: usize) -> f32 {
        f16::from_bits(self.0[lane]).to_f32()
    }

    #[inline(always)]
    fn load<S: Isa>(&self, s: S) -> S::F {
        s.widen_f16(&self.0)
    }
}

impl FloatLanes for Bf16Lanes {
    const ZERO: Self = Self([0; LANES]);
    const BYTES: usize = 2;

    #[inline]
    fn set(&mut self, lane: usize, bytes: &[u8]) {
        self.0[lane] = u16::from_le_bytes([bytes[0], bytes[1]]);
    }

    fn get(&self, lane: usize) -> f32 {
        bf16::from_bits(self.0[lane]).to_f32()
    }

    #[inline(always)]
    fn load<S: Isa>(&self, s: S) -> S::F {
        s.widen_bf16(&self.0)
    }
}
