//! Codes of quantized weights: a register holds four inputs of sixteen outputs.

use crate::simd::{Isa, Quad};

use super::ggml::Codes;
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
