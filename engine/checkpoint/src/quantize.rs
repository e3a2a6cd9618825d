//! f32 to every storage format, by rounding to the nearest step. Good enough for synthetic models; it does
//! not search for better scales as converters do.

use half::{bf16, f16};

use crate::DType;

/// Encodes whole blocks; elements after the last whole block are left out.
pub fn quantize(dtype: DType, elements: &[f32]) -> Vec<u8> {
    let (block_elements, block_bytes) = dtype.block();
    let mut bytes = Vec::with_capacity(elements.len() / block_elements * block_bytes);
    for block in elements.chunks_exact(block_elements) {
        match dtype {
            DType::F32 => bytes.extend(block[0].to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f32(block[0]).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f32(block[0]).to_le_bytes()),
            DType::Q8_0 => q8_0(block, &mut bytes),
            DType::Q4_0 => symmetric(block, 4, &mut bytes),
            DType::Q5_0 => symmetric(block, 5, &mut bytes),
            DType::Q4_1 => with_offset(block, 4, &mut bytes),
            DType::Q5_1 => with_offset(block, 5, &mut bytes),
            DType::Q4K => k_with_offset(block, 4, &mut bytes),
            DType::Q5K => k_with_offset(block, 5, &mut bytes),
            DType::Q6K => q6_k(block, &mut bytes),
        }
    }
    bytes
}

/// Appends a scale and returns what a reader will see of it.
fn put_half(value: f32, bytes: &mut Vec<u8>) -> f32 {
    let stored = f16::from_f32(value);
    bytes.extend(stored.to_le_bytes());
    stored.to_f32()
}

/// Nearest step, where a scale of zero has only step zero.
fn step(value: f32, scale: f32, least: f32, most: f32) -> f32 {
    if scale == 0.0 { 0.0f32.clamp(least, most) } else { (value / scale).round().clamp(least, most) }
}

/// The element of largest magnitude, with its sign.
fn extreme(block: &[f32]) -> f32 {
    block
        .iter()
        .copied()
        .fold(0.0, |most: f32, element| if element.abs() > most.abs() { element } else { most })
}

fn bounds(block: &[f32]) -> (f32, f32) {
    block.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), element| {
        (least.min(*element), most.max(*element))
    })
}

fn q8_0(block: &[f32], bytes: &mut Vec<u8>) {
    let d = put_half(extreme(block).abs() / 127.0, bytes);
    bytes.extend(block.iter().map(|element| step(*element, d, -127.0, 127.0) as i8 as u8));
}

/// `Q4_0` and `Q5_0`: the extreme element becomes the most negative step.
fn symmetric(block: &[f32], bits: u32, bytes: &mut Vec<u8>) {
    let middle = (1u32 << (bits - 1)) as f32;
    let d = put_half(extreme(block) / -middle, bytes);
    let steps: Vec<u8> =
        block.iter().map(|element| (step(*element, d, -middle, middle - 1.0) + middle) as u8).collect();
    put_steps(&steps, bits, bytes);
}

/// `Q4_1` and `Q5_1`: steps count from the least element.
fn with_offset(block: &[f32], bits: u32, bytes: &mut Vec<u8>) {
    let most_step = ((1u32 << bits) - 1) as f32;
    let (least, most) = bounds(block);
    let d = put_half((most - least) / most_step, bytes);
    let m = put_half(least, bytes);
    let steps: Vec<u8> = block.iter().map(|element| step(element - m, d, 0.0, most_step) as u8).collect();
    put_steps(&steps, bits, bytes);
}

/// Fifth bits as a word, then nibbles.
fn put_steps(steps: &[u8], bits: u32, bytes: &mut Vec<u8>) {
    if bits == 5 {
        let word = steps.iter().enumerate().fold(0u32, |word, (i, step)| word | u32::from(step >> 4) << i);
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend((0..16).map(|i| steps[i] & 15 | (steps[i + 16] & 15) << 4));
}

/// `Q4_K` and `Q5_K`: eight sub-blocks of 32, whose scales and offsets are 6-bit multiples of the block's two.
fn k_with_offset(block: &[f32], bits: u32, bytes: &mut Vec<u8>) {
    let most_step = ((1u32 << bits) - 1) as f32;
    let (mut scales, mut offsets) = ([0.0f32; 8], [0.0f32; 8]);
    for (j, part) in block.chunks_exact(32).enumerate() {
        let (least, most) = bounds(part);
        offsets[j] = (-least).max(0.0);
        scales[j] = (most + offsets[j]).max(0.0) / most_step;
    }
    let d = put_half(extreme(&scales) / 63.0, bytes);
    let m = put_half(extreme(&offsets) / 63.0, bytes);
    let scales = scales.map(|scale| step(scale, d, 0.0, 63.0) as u8);
    let offsets = offsets.map(|offset| step(offset, m, 0.0, 63.0) as u8);
    put_k_scales(scales, offsets, bytes);
    let one = |(i, element): (usize, &f32)| {
        let (scale, offset) = (d * f32::from(scales[i / 32]), m * f32::from(offsets[i / 32]));
        step(element + offset, scale, 0.0, most_step) as u8
    };
    let steps: Vec<u8> = block.iter().enumerate().map(one).collect();
    if bits == 5 {
        bytes.extend((0..32).map(|i| (0..8).fold(0, |high, j| high | (steps[j * 32 + i] >> 4) << j)));
    }
    for part in steps.chunks_exact(64) {
        bytes.extend((0..32).map(|i| part[i] & 15 | (part[i + 32] & 15) << 4));
    }
}

fn put_k_scales(scales: [u8; 8], offsets: [u8; 8], bytes: &mut Vec<u8>) {
    bytes.extend((0..4).map(|j| scales[j] | scales[j + 4] >> 4 << 6));
    bytes.extend((0..4).map(|j| offsets[j] | offsets[j + 4] >> 4 << 6));
    bytes.extend((4..8).map(|j| scales[j] & 15 | (offsets[j] & 15) << 4));
}

/// Sixteen sub-blocks of 16 with signed 8-bit scales.
fn q6_k(block: &[f32], bytes: &mut Vec<u8>) {
    let mut scales = [0.0f32; 16];
    for (scale, part) in scales.iter_mut().zip(block.chunks_exact(16)) {
        *scale = extreme(part) / -32.0;
    }
    let d = f16::from_f32(extreme(&scales).abs() / 127.0);
    let scales = scales.map(|scale| step(scale, d.to_f32(), -127.0, 127.0) as i8);
    let one = |(i, element): (usize, &f32)| {
        let scale = d.to_f32() * f32::from(scales[i / 16]);
        (step(*element, scale, -32.0, 31.0) + 32.0) as u8
    };
    let steps: Vec<u8> = block.iter().enumerate().map(one).collect();
    for half in steps.chunks_exact(128) {
        bytes.extend((0..64).map(|i| half[i] & 15 | (half[i + 64] & 15) << 4));
    }
    for half in steps.chunks_exact(128) {
        bytes.extend((0..32).map(|i| (0..4).fold(0, |high, j| high | (half[j * 32 + i] >> 4) << (2 * j))));
    }
    bytes.extend(scales.map(|scale| scale as u8));
    bytes.extend(d.to_le_bytes());
}
