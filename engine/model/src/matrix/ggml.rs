//! GGML's block formats, read 32 elements at a time.
//!
//! Whatever the format, an element is `scale × (code - zero)` or `scale × code + min` with one scale per
//! 32 elements (16 for `Q6K`) and codes of 4 or 8 bits.

use half::f16;
use shoal_checkpoint::DType;

/// Elements of a block.
pub(crate) const BLOCK: usize = 32;

/// Thirty-two elements of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Block32 {
    pub(crate) codes: Codes,
    /// Of the first and the second sixteen elements.
    pub(crate) scales: [f32; 2],
    /// Added to every element; `None` where codes are centred on zero.
    pub(crate) min: Option<f32>,
}

/// Codes in words of four consecutive elements, little endian.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Codes {
    /// Low nibbles are elements 0..16, high nibbles 16..32; the centre is 8.
    Nibbles([u32; 4]),
    /// The centre is 128.
    Bytes([u32; 8]),
}

impl Block32 {
    pub(crate) fn dequantize(&self) -> [f32; BLOCK] {
        let (codes, zero) = match self.codes {
            Codes::Nibbles(words) => (split_nibbles(words), 8.0),
            Codes::Bytes(words) => (word_bytes(words), 128.0),
        };
        std::array::from_fn(|i| {
            let (code, scale) = (f32::from(codes[i]), self.scales[i / 16]);
            self.min.map_or_else(|| scale * (code - zero), |min| scale.mul_add(code, min))
        })
    }
}

/// Elements `32 × index ..` of a row stored as `row`, which holds whole blocks of the format.
///
/// Must not be called for float formats.
#[inline]
pub(crate) fn block(dtype: DType, row: &[u8], index: usize) -> Block32 {
    let (elements, bytes) = dtype.block();
    let start = index * BLOCK / elements * bytes;
    let b = &row[start..start + bytes];
    let part = index % (elements / BLOCK).max(1);
    match dtype {
        DType::Q4_0 => centred(Codes::Nibbles(words(&b[2..18])), half(b, 0)),
        DType::Q4_1 => shifted(Codes::Nibbles(words(&b[4..20])), half(b, 0), half(b, 2)),
        DType::Q5_0 => centred(Codes::Bytes(five_bits(&b[6..22], word(b, 2), 112)), half(b, 0)),
        DType::Q5_1 => shifted(Codes::Bytes(five_bits(&b[8..24], word(b, 4), 0)), half(b, 0), half(b, 2)),
        DType::Q8_0 => centred(Codes::Bytes(words::<8>(&b[2..34]).map(|w| w ^ 0x8080_8080)), half(b, 0)),
        DType::Q4K => q4k(b, part),
        DType::Q5K => q5k(b, part),
        DType::Q6K => q6k(b, part),
        DType::F32 | DType::F16 | DType::BF16 => unreachable!("floats have no blocks"),
    }
}

fn centred(codes: Codes, scale: f32) -> Block32 {
    Block32 { codes, scales: [scale; 2], min: None }
}

fn shifted(codes: Codes, scale: f32, min: f32) -> Block32 {
    Block32 { codes, scales: [scale; 2], min: Some(min) }
}

fn half(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

fn word(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn words<const N: usize>(b: &[u8]) -> [u32; N] {
    std::array::from_fn(|i| word(b, 4 * i))
}

fn from_codes(code: impl Fn(usize) -> u8) -> [u32; 8] {
    std::array::from_fn(|w| u32::from_le_bytes(std::array::from_fn(|i| code(4 * w + i))))
}

fn split_nibbles(words: [u32; 4]) -> [u8; BLOCK] {
    std::array::from_fn(|i| (words[i % 16 / 4].to_le_bytes()[i % 4] >> (i / 16 * 4)) & 15)
}

fn word_bytes(words: [u32; 8]) -> [u8; BLOCK] {
    std::array::from_fn(|i| words[i / 4].to_le_bytes()[i % 4])
}

/// Nibbles with a fifth bit from `high`; `offset` moves the centre of 16 to 128.
fn five_bits(nibbles: &[u8], high: u32, offset: u8) -> [u32; 8] {
    from_codes(|i| {
        let low = (nibbles[i % 16] >> (i / 16 * 4)) & 15;
        (low | (((high >> i) & 1) as u8) << 4) + offset
    })
}

/// Six-bit scale and minimum of sub-block `part` of a `Q4K` or `Q5K` block; 12 bytes hold eight of each.
fn six_bit_pair(b: &[u8], part: usize) -> (f32, f32) {
    let (scale, min) = if part < 4 {
        (b[part] & 63, b[part + 4] & 63)
    } else {
        let (low, scale_high, min_high) = (b[part + 4], b[part - 4], b[part]);
        ((low & 15) | (scale_high >> 6 << 4), (low >> 4) | (min_high >> 6 << 4))
    };
    (f32::from(scale), f32::from(min))
}

fn k_factors(b: &[u8], part: usize) -> (f32, f32) {
    let (scale, min) = six_bit_pair(&b[4..16], part);
    (half(b, 0) * scale, -(half(b, 2) * min))
}

/// d, dmin, 12 bytes of scales, 128 bytes: low nibbles are even sub-blocks, high nibbles odd ones.
fn q4k(b: &[u8], part: usize) -> Block32 {
    let (scale, min) = k_factors(b, part);
    let codes = &b[16 + part / 2 * 32..][..32];
    let nibble = |i: usize| (codes[i] >> (part % 2 * 4)) & 15;
    let pair = |i: usize| nibble(i) | nibble(i + 16) << 4;
    let words = std::array::from_fn(|w| u32::from_le_bytes(std::array::from_fn(|i| pair(4 * w + i))));
    shifted(Codes::Nibbles(words), scale, min)
}

/// As `Q4K`, with 32 bytes of fifth bits before the nibbles: bit `part` of byte `i`.
fn q5k(b: &[u8], part: usize) -> Block32 {
    let (scale, min) = k_factors(b, part);
    let (high, codes) = (&b[16..48], &b[48 + part / 2 * 32..][..32]);
    let code = |i: usize| ((codes[i] >> (part % 2 * 4)) & 15) | ((high[i] >> part) & 1) << 4;
    shifted(Codes::Bytes(from_codes(code)), scale, min)
}

/// 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales, d. Each half of the block is four
/// sub-blocks of 32: nibbles low, low of the next 32 bytes, then high of both.
fn q6k(b: &[u8], part: usize) -> Block32 {
    let (side, quarter) = (part / 4, part % 4);
    let low = &b[side * 64 + quarter % 2 * 32..][..32];
    let high = &b[128 + side * 32..][..32];
    let code = |i: usize| {
        let nibble = (low[i] >> (quarter / 2 * 4)) & 15;
        (nibble | ((high[i] >> (2 * quarter)) & 3) << 4) + 96
    };
    let d = half(b, 208);
    let scale = |i: usize| d * f32::from(b[192 + side * 8 + quarter * 2 + i] as i8);
    Block32 { codes: Codes::Bytes(from_codes(code)), scales: [scale(0), scale(1)], min: None }
}
