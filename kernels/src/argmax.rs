//! Greedy sampling: the id of the largest logit of each row.
#![allow(unsafe_code)]

use std::sync::Arc;

use half::bf16;

use crate::gpu::{Gpu, Kernels};
use crate::launch::{Function, Grid, LaunchError, Params, require};
use crate::memory::{Buffer, Element};
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ArgmaxParams {
    logits: u64,
    ids: u64,
    partial: u64,
    stride: u64,
    vocab: u32,
    parts: u32,
}

// SAFETY: as in cu/sampling/argmax.cu.
unsafe impl Params for ArgmaxParams {
    const UNIT: &'static str = "argmax";
}

mod sealed {
    use super::{ArgmaxParams, Function, Kernels};
    #[expect(private_interfaces, reason = "sealed: implemented and called here only")]
    pub trait Variant {
        fn kernel(kernels: &Kernels) -> &Function<ArgmaxParams>;
    }
}

/// What logits are stored as: `f32` or `bf16`.
pub trait Logits: Element + sealed::Variant {}

impl Logits for f32 {}
impl Logits for bf16 {}

#[expect(private_interfaces, reason = "sealed: implemented and called here only")]
impl sealed::Variant for f32 {
    fn kernel(kernels: &Kernels) -> &Function<ArgmaxParams> {
        &kernels.argmax_f32
    }
}

#[expect(private_interfaces, reason = "sealed: implemented and called here only")]
impl sealed::Variant for bf16 {
    fn kernel(kernels: &Kernels) -> &Function<ArgmaxParams> {
        &kernels.argmax_bf16
    }
}

/// Parts of a row at most: enough for one row to use the whole device.
const MAX_PARTS: usize = 256;
const THREADS: u32 = 256;

/// The best of each part of each row, between the two kernels.
#[derive(Debug)]
pub struct ArgmaxScratch {
    /// Pairs of a value's bits and an index.
    best: Buffer<u32>,
    rows: usize,
}

impl ArgmaxScratch {
    pub fn new(gpu: &Arc<Gpu>, rows: usize) -> Result<Self, LaunchError> {
        Ok(Self { best: Buffer::new(gpu, rows * MAX_PARTS * 2)?, rows })
    }
}

/// `ids[r]` = lowest index of row r's largest logit: logits `[rows][vocab]`, ids `[1][rows]`. NaN never
/// wins; a row of NaN alone gives `u32::MAX`.
pub fn argmax<T: Logits>(
    queue: &Queue,
    logits: Rows<'_, T>,
    scratch: &mut ArgmaxScratch,
    ids: &mut RowsMut<'_, u32>,
) -> Result<(), LaunchError> {
    let kernel = T::kernel(queue.gpu().kernels());
    by_parts(queue, "argmax", logits, scratch, ids.view, |parts, partial, grid| {
        let params = params(logits, 0, partial, parts);
        // SAFETY: the view covers every row that the kernel reads, and the scratch what it writes.
        unsafe { kernel.launch(queue, grid, params) }
    })
}

fn params<T>(logits: Rows<'_, T>, ids: u64, partial: u64, parts: u32) -> ArgmaxParams {
    let (stride, vocab) = (logits.stride as u64, logits.columns as u32);
    ArgmaxParams { logits: logits.address, ids, partial, stride, vocab, parts }
}

/// The best of each part of each row by `launch`, which is given the number of parts, where they go and the grid; then
/// the best of the parts.
pub(crate) fn by_parts<T>(
    queue: &Queue,
    kernel: &'static str,
    logits: Rows<'_, T>,
    scratch: &mut ArgmaxScratch,
    ids: Rows<'_, u32>,
    launch: impl FnOnce(u32, u64, Grid) -> Result<(), LaunchError>,
) -> Result<(), LaunchError> {
    require(kernel, ids.rows == 1 && ids.columns == logits.rows && logits.columns > 0, || {
        format!("{} x {} logits into {} ids", logits.rows, logits.columns, ids.columns)
    })?;
    require(kernel, logits.rows <= scratch.rows, || {
        format!("{} rows with scratch for {}", logits.rows, scratch.rows)
    })?;
    let most = (16 * queue.gpu().multiprocessors()).div_ceil(logits.rows.max(1)).min(MAX_PARTS);
    let parts = logits.columns.div_ceil(THREADS as usize).min(most);
    let partial = scratch.best.address();
    launch(parts as u32, partial, Grid { blocks: [parts, logits.rows, 1], threads: THREADS, shared: 0 })?;
    let pick = Grid { blocks: [logits.rows, 1, 1], threads: 32, shared: 0 };
    let params = params(logits, ids.address, partial, parts as u32);
    // SAFETY: the view covers every id that is written, and the scratch has `MAX_PARTS` pairs for each row.
    unsafe { queue.gpu().kernels().argmax_pick.launch(queue, pick, params) }
}
