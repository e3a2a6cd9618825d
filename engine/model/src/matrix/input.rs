//! Rows that enter a matrix: f32 values, and beside them the same in signed bytes for quantized weights.

use std::ops::Range;

use crate::simd::{Isa, Kernel, LANES};
use crate::team::Team;

use super::ggml::BLOCK;

/// Thirty-two values of a row as signed bytes × `scale`, with what the zero points of weights need.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct InputBlock {
    /// Four bytes each, little endian.
    pub(crate) quads: [i32; 8],
    pub(crate) scale: f32,
    /// `scale ×` the sum of the bytes.
    pub(crate) sum: f32,
    /// −8 × the sum of the bytes.
    pub(crate) minus_8: i32,
    /// −128 × the sum of the first sixteen bytes, of the others, of all.
    pub(crate) minus_128: [i32; 3],
}

/// `rows × width` values.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) values: Vec<f32>,
    /// By [`tiles`] of rows, each `[block][row]`: what is multiplied together lies together.
    blocks: Vec<InputBlock>,
}

/// Rows that are multiplied together at most.
const TILE: usize = 8;

/// How `rows` rows are divided: eights, then at most one four, one two and one single row.
pub(super) fn tiles(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let left = rows - first;
        let size = if left >= TILE { TILE } else { (left + 1).next_power_of_two() / 2 };
        let tile = first..first + size;
        first = tile.end;
        (!tile.is_empty()).then_some(tile)
    })
}

impl Input {
    /// Sets the size; the values are those of the last use.
    pub(crate) fn resize(&mut self, rows: usize, width: usize) {
        (self.rows, self.width) = (rows, width);
        self.values.resize(rows * width, 0.0);
        self.blocks.resize(rows * self.blocks_per_row(), InputBlock::default());
    }

    fn blocks_per_row(&self) -> usize {
        self.width / BLOCK
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }

    /// The blocks of a tile of `R` rows, from row `first`.
    pub(super) fn tile<const R: usize>(&self, first: usize) -> &[[InputBlock; R]] {
        let blocks = self.blocks_per_row();
        self.blocks[first * blocks..][..R * blocks].as_chunks().0
    }

    /// Fills each row by `fill(row, values)` and quantizes it.
    pub(crate) fn fill(&mut self, team: &Team, fill: impl Fn(usize, &mut [f32]) + Sync) {
        let (width, cpu) = (self.width, team.cpu());
        let blocks = TILE * self.blocks_per_row();
        team.chunks(&mut self.values, width, &fill);
        team.zip(&mut self.values, TILE * width, &mut self.blocks, blocks, |_, values, blocks| {
            cpu.run(Quantize { values, width, blocks });
        });
    }
}

/// Bytes are `value × 127 / largest magnitude`, rounded to nearest.
struct Quantize<'a> {
    /// Whole rows of `width`.
    values: &'a [f32],
    width: usize,
    blocks: &'a mut [InputBlock],
}

impl Kernel for Quantize<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Self { values, width, blocks } = self;
        for tile in tiles(values.len() / width) {
            let size = tile.len();
            let blocks = &mut blocks[tile.start * (width / BLOCK)..];
            for (r, row) in tile.enumerate() {
                let (chunks, _) = values[row * width..][..width].as_chunks::<BLOCK>();
                for (values, block) in chunks.iter().zip(blocks[r..].iter_mut().step_by(size)) {
                    *block = quantize(s, values);
                }
            }
        }
    }
}

/// Below this the block counts as zero, so that no inverse overflows.
const TINY: f32 = 1e-30;

/// Rounds to the eleven significant bits of an f16, at any magnitude.
///
/// GGML keeps these factors in f16 and attends in f16. Rounding alike makes greedy text agree with
/// llama.cpp's where the margin between two tokens is as thin as the rounding itself.
#[inline(always)]
pub(crate) fn eleven_bits(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff)
}

#[inline(always)]
fn quantize<S: Isa>(s: S, values: &[f32; BLOCK]) -> InputBlock {
    let largest = values.iter().fold(0.0_f32, |m, v| if v.abs() > m { v.abs() } else { m });
    if largest < TINY {
        return InputBlock::default();
    }
    let inverse = s.splat(127.0 / largest);
    let (halves, _) = values.as_chunks::<LANES>();
    let low = s.narrow_i8(s.mul(s.load(&halves[0]), inverse));
    let high = s.narrow_i8(s.mul(s.load(&halves[1]), inverse));
    let total = |bytes: &[i8; LANES]| bytes.iter().map(|b| i32::from(*b)).sum::<i32>();
    let (first, second) = (total(&low), total(&high));
    let quad =
        |bytes: &[i8; LANES], q: usize| i32::from_le_bytes(std::array::from_fn(|i| bytes[4 * q + i] as u8));
    let exact = largest / 127.0;
    let scale = eleven_bits(exact);
    let all = first + second;
    InputBlock {
        quads: std::array::from_fn(|q| if q < 4 { quad(&low, q) } else { quad(&high, q - 4) }),
        scale,
        sum: eleven_bits(exact * all as f32),
        minus_8: -8 * all,
        minus_128: [-128 * first, -128 * second, -128 * all],
    }
}
