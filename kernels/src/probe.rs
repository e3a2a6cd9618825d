//! Kernels that measure the machine rather than compute: its memory, and what a launch costs.
#![allow(unsafe_code)]

use half::bf16;

use crate::launch::{Grid, LaunchError, Params};
use crate::memory::Buffer;
use crate::queue::Queue;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct FillParams {
    out: u64,
    words: u64,
    seed: u32,
    scale: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadParams {
    input: u64,
    sink: u64,
    vectors: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct EmptyParams {
    nothing: u64,
}

// SAFETY: as in cu/probe/ceilings.cu.
unsafe impl Params for FillParams {
    const UNIT: &'static str = "ceilings";
}
// SAFETY: as above.
unsafe impl Params for ReadParams {
    const UNIT: &'static str = "ceilings";
}
// SAFETY: as above.
unsafe impl Params for EmptyParams {
    const UNIT: &'static str = "ceilings";
}

/// Fills the buffer with values uniform in ±scale that depend on the seed and the index alone.
/// An odd last element is left as it is.
pub fn fill_random(
    queue: &Queue,
    buffer: &mut Buffer<bf16>,
    seed: u32,
    scale: f32,
) -> Result<(), LaunchError> {
    let params = FillParams { out: buffer.address(), words: (buffer.len() / 2) as u64, seed, scale };
    let blocks = [queue.gpu().multiprocessors() * 8, 1, 1];
    // SAFETY: `words` pairs lie inside the buffer.
    unsafe { queue.gpu().kernels().fill.launch(queue, Grid { blocks, threads: 256, shared: 0 }, params) }
}

/// Reads the whole buffer once with `blocks_per_multiprocessor` blocks of 512 threads and writes nothing.
pub fn read_all(
    queue: &Queue,
    buffer: &Buffer<bf16>,
    sink: &mut Buffer<u32>,
    blocks_per_multiprocessor: usize,
) -> Result<(), LaunchError> {
    let params =
        ReadParams { input: buffer.address(), sink: sink.address(), vectors: (buffer.len() / 8) as u64 };
    let blocks = [queue.gpu().multiprocessors() * blocks_per_multiprocessor, 1, 1];
    // SAFETY: `vectors` 16-byte reads lie inside the buffer; a buffer's allocation holds at least one word.
    unsafe { queue.gpu().kernels().read_only.launch(queue, Grid { blocks, threads: 512, shared: 0 }, params) }
}

/// Launches `blocks` blocks that do nothing.
pub fn empty(queue: &Queue, blocks: usize) -> Result<(), LaunchError> {
    let grid = Grid { blocks: [blocks, 1, 1], threads: 128, shared: 0 };
    // SAFETY: the kernel touches no memory.
    unsafe { queue.gpu().kernels().empty.launch(queue, grid, EmptyParams { nothing: 0 }) }
}
