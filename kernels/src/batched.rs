//! Products of tens of tokens: boxes of both operands through the copy engine to the warpgroups' matrix units.
#![allow(unsafe_code)]

use cudarc::driver::sys;

use crate::gpu::OpenError;
use crate::launch::{Function, Grid, LaunchError, Params, require};
use crate::queue::Queue;
use crate::tensor_map::{BOX_COLUMNS, describe};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchedParams {
    weight: sys::CUtensorMap,
    x: sys::CUtensorMap,
    out: u64,
    tokens: u32,
    outputs: u32,
    inputs: u32,
    slices: u32,
}

// SAFETY: as in cu/gemm/batched.cuh.
unsafe impl Params for BatchedParams {
    const UNIT: &'static str = "batched";
}

/// Most tokens of each kernel, and the boxes that it has under way, as in cu/gemm/batched.cuh.
const TOKENS: [usize; 3] = [32, 64, 128];
const STAGES: [usize; 3] = [5, 4, 3];
const ROWS: usize = 128;
const DEPTH: usize = BOX_COLUMNS;
const THREADS: u32 = 288;

/// Blocks of a cluster at most.
const MOST_SLICES: usize = 8;

/// Kernels by tokens, and what the device holds of them.
pub(crate) type Kernels = [Variant; 3];

pub(crate) struct Variant {
    /// By finish: store, add, wide, silu.
    pub(crate) finishes: [Function<BatchedParams>; 4],
    /// By blocks of a cluster, from 1 on: clusters that the device holds at once.
    resident: [usize; MOST_SLICES],
}

impl Variant {
    pub(crate) fn new(place: usize, finishes: [Function<BatchedParams>; 4]) -> Result<Self, OpenError> {
        let mut resident = [0; MOST_SLICES];
        for (index, clusters) in resident.iter_mut().enumerate() {
            let blocks = index + 1;
            let grid = Grid { blocks: [blocks, 1, 1], threads: THREADS, shared: shared(place) };
            *clusters = finishes[0].resident_clusters(grid, [blocks as u32, 1])?;
        }
        Ok(Self { finishes, resident })
    }
}

/// Dynamic shared memory of a kernel: its boxes, and what aligns them.
pub(crate) fn shared(place: usize) -> u32 {
    (STAGES[place] * (ROWS + TOKENS[place]) * DEPTH * 2 + 1024) as u32
}

/// Device addresses and sizes of a dense product.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) x: u64,
    pub(crate) weight: u64,
    pub(crate) out: u64,
    pub(crate) tokens: usize,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

/// # Safety
/// The addresses hold dense matrices of the sizes beside them until the queue has run the kernel, 16-byte
/// aligned, `out` as the finish wants it.
pub(crate) unsafe fn launch(queue: &Queue, finish: usize, batch: &Batch) -> Result<(), LaunchError> {
    const KERNEL: &str = "batched";
    let Batch { x, weight, out, tokens, outputs, inputs } = *batch;
    let place = TOKENS.iter().position(|most| tokens <= *most);
    require(KERNEL, place.is_some(), || format!("{tokens} tokens are more than 128"))?;
    let place = place.unwrap_or_default();
    let variant = &queue.gpu().kernels().batched[place];
    let slices = slices(outputs, inputs, &variant.resident);
    let params = BatchedParams {
        weight: describe(weight, [inputs, outputs], ROWS)?,
        x: describe(x, [inputs, tokens], TOKENS[place])?,
        out,
        tokens: tokens as u32,
        outputs: outputs as u32,
        inputs: inputs as u32,
        slices: slices as u32,
    };
    let blocks = [outputs.div_ceil(ROWS) * slices, 1, 1];
    let grid = Grid { blocks, threads: THREADS, shared: shared(place) };
    // SAFETY: as the caller promises.
    unsafe { variant.finishes[finish].launch_clustered(queue, grid, [slices as u32, 1], params) }
}

/// Blocks that share the inputs of one tile: as many as the device holds at once for all tiles. A second wave of a few
/// clusters would take as long as the first.
fn slices(outputs: usize, inputs: usize, resident: &[usize; MOST_SLICES]) -> usize {
    let tiles = outputs.div_ceil(ROWS);
    let fits = |slices: &usize| tiles <= resident[slices - 1] && slices * DEPTH <= inputs;
    (2..=MOST_SLICES).rev().find(fits).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clusters of 132 multiprocessors with two blocks each, in groups of 16 and 18.
    const RESIDENT: [usize; MOST_SLICES] = [264, 132, 84, 64, 50, 40, 34, 32];

    #[test]
    fn slices_fill_the_device_and_no_more() {
        let of = |outputs, inputs| slices(outputs, inputs, &RESIDENT);
        assert_eq!([of(4096, 4096), of(6144, 4096), of(28672, 4096)], [8, 5, 1]);
        assert_eq!(of(256, 64), 1, "each slice has inputs");
        let mut fewer = RESIDENT;
        fewer[7] = 31;
        assert_eq!(slices(4096, 4096, &fewer), 7, "32 clusters of 8 would need a second wave");
        assert_eq!([0, 1, 2].map(shared), [5 * 20480 + 1024, 4 * 24576 + 1024, 3 * 32768 + 1024]);
    }
}
