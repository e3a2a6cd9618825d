//! Every storage format to f32, by its definition and in no hurry: the oracle of the fast kernels.
//!
//! A block is a scale (and for some an offset) for a fixed number of small integers. `d` and `m` below are
//! f16, nibbles come low half first, and all formats are those of GGML.

use half::{bf16, f16};

use crate::{DType, TensorView};

#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    #[error("tensor {name}: {found} bytes of {dtype:?} are not a tensor of shape {shape:?}")]
    Size { name: String, dtype: DType, shape: Vec<usize>, found: usize },
}

impl TensorView<'_> {
    /// All elements in row-major order. Takes at most 8 bytes of memory per byte of the file.
    pub fn to_f32(&self) -> Result<Vec<f32>, TensorError> {
        let shape: Vec<u64> = self.shape.iter().map(|&dimension| dimension as u64).collect();
        if self.dtype.byte_size(&shape).ok() != Some(self.bytes.len() as u64) {
            let (name, shape) = (self.name.to_owned(), self.shape.clone());
            return Err(TensorError::Size { name, dtype: self.dtype, shape, found: self.bytes.len() });
        }
        let mut elements = vec![0.0; self.shape.iter().product()];
        dequantize(self.dtype, self.bytes, &mut elements);
        Ok(elements)
    }
}

/// Decodes whole blocks until `bytes` or `elements` ends, and returns the number of elements written.
pub fn dequantize(dtype: DType, bytes: &[u8], elements: &mut [f32]) -> usize {
    let (block_elements, block_bytes) = dtype.block();
    let decode = decoder(dtype);
    let blocks = bytes.chunks_exact(block_bytes).zip(elements.chunks_exact_mut(block_elements));
    blocks.map(|(block, out)| decode(block, out)).count() * block_elements
}

/// A function from one block to its elements; both have exactly the block's size.
fn decoder(dtype: DType) -> fn(&[u8], &mut [f32]) {
    match dtype {
        DType::F32 => |block, out| out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
        DType::F16 => |block, out| out[0] = half_at(block, 0),
        DType::BF16 => |block, out| out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
        DType::Q8_0 => q8_0,
        DType::Q4_0 => q4_0,
        DType::Q4_1 => q4_1,
        DType::Q5_0 => q5_0,
        DType::Q5_1 => q5_1,
        DType::Q4K => q4_k,
        DType::Q5K => q5_k,
        DType::Q6K => q6_k,
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `d · q`, q signed 8 bit.
fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = d * f32::from(q as i8);
    }
}

/// Element `i` of 32: low nibbles are elements 0..16, high nibbles 16..32.
fn nibble(nibbles: &[u8], i: usize) -> u8 {
    if i < 16 { nibbles[i] & 15 } else { nibbles[i - 16] >> 4 }
}

/// `d · (q - 8)`, q 4 bit.
fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (i, out) in out.iter_mut().enumerate() {
        *out = d * (f32::from(nibble(&block[2..], i)) - 8.0);
    }
}

/// `d · q + m`, q 4 bit.
fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, out) in out.iter_mut().enumerate() {
        *out = d * f32::from(nibble(&block[4..], i)) + m;
    }
}

/// The fifth bit of element `i` is bit `i` of a little-endian word.
fn fifth_bit(word: &[u8], i: usize) -> u8 {
    (word[i / 8] >> (i % 8) & 1) << 4
}

/// `d · (q - 16)`, q 5 bit.
fn q5_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (i, out) in out.iter_mut().enumerate() {
        let q = nibble(&block[6..], i) | fifth_bit(&block[2..6], i);
        *out = d * (f32::from(q) - 16.0);
    }
}

/// `d · q + m`, q 5 bit.
fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, out) in out.iter_mut().enumerate() {
        let q = nibble(&block[8..], i) | fifth_bit(&block[4..8], i);
        *out = d * f32::from(q) + m;
    }
}

/// Scale and offset of sub-block `j` of 8, six bits each, packed in 12 bytes: the first four of either lie
/// in the low six bits of bytes 0..4 and 4..8, whose upper two bits complete the nibbles of bytes 8..12.
fn k_scale(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, offset) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4), (packed[j + 4] >> 4) | (packed[j] >> 6 << 4))
    };
    (f32::from(scale), f32::from(offset))
}

/// Nibble `i` of 256: 64 elements share 32 bytes, the first 32 in the low nibbles.
fn k_nibble(nibbles: &[u8], i: usize) -> u8 {
    nibbles[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15
}

/// `d · scale_j · q - m · offset_j`, q 4 bit, j the sub-block of 32 elements.
fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, offset) = k_scale(&block[4..16], i / 32);
        *out = d * scale * f32::from(k_nibble(&block[16..], i)) - m * offset;
    }
}

/// As [`q4_k`] with a fifth bit: bit `j` of byte `i % 32`.
fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, offset) = k_scale(&block[4..16], i / 32);
        let high = block[16 + i % 32] >> (i / 32) & 1;
        let q = k_nibble(&block[48..], i) | high << 4;
        *out = d * scale * f32::from(q) - m * offset;
    }
}

/// `d · scale_s · (q - 32)`, q 6 bit, s the sub-block of 16 elements with a signed 8-bit scale. Each half of
/// 128 elements has 64 bytes of low nibbles and 32 bytes of upper pairs of bits.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 208);
    for (i, out) in out.iter_mut().enumerate() {
        let (half, within) = (i / 128, i % 128);
        let low = block[half * 64 + within % 64] >> (within / 64 * 4) & 15;
        let high = block[128 + half * 32 + within % 32] >> (within / 32 * 2) & 3;
        let scale = f32::from(block[192 + i / 16] as i8);
        *out = d * scale * (f32::from(low | high << 4) - 32.0);
    }
}
