//! Greedy sampling: the id of the largest logit of each row.
#![allow(unsafe_code)]

use half::bf16;

use crate::gpu::Kernels;
use crate::launch::{Function, Grid, LaunchError, Params, require};
use crate::memory::Element;
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ArgmaxParams {
    logits: u64,
    ids: u64,
    stride: u64,
    vocab: u32,
    padding: u32,
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

/// `ids[r]` = lowest index of row r's largest logit: logits `[rows][vocab]`, ids `[1][rows]`. NaN never
/// wins; a row of NaN alone gives `u32::MAX`.
pub fn argmax<T: Logits>(
    queue: &Queue,
    logits: Rows<'_, T>,
    ids: &mut RowsMut<'_, u32>,
) -> Result<(), LaunchError> {
    let ids = ids.view;
    require("argmax", ids.rows == 1 && ids.columns == logits.rows && logits.columns > 0, || {
        format!("{} x {} logits into {} ids", logits.rows, logits.columns, ids.columns)
    })?;
    let params = ArgmaxParams {
        logits: logits.address,
        ids: ids.address,
        stride: logits.stride as u64,
        vocab: logits.columns as u32,
        padding: 0,
    };
    let grid = Grid { blocks: [logits.rows, 1, 1], threads: 1024, shared: 0 };
    // SAFETY: the views cover every row that the kernel reads and every id that it writes.
    unsafe { T::kernel(queue.gpu().kernels()).launch(queue, grid, params) }
}
