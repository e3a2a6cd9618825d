//! Root-mean-square norm, alone or after adding to the residual stream.
#![allow(unsafe_code)]

use half::bf16;

use crate::launch::{Grid, LaunchError, Params, require};
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct RmsNormParams {
    x: u64,
    residual: u64,
    weight: u64,
    out: u64,
    x_stride: u64,
    residual_stride: u64,
    out_stride: u64,
    hidden: u32,
    eps: f32,
}

// SAFETY: as in cu/norm/rmsnorm.cuh.
unsafe impl Params for RmsNormParams {
    const UNIT: &'static str = "rmsnorm";
}

const THREADS: u32 = 256;

/// `out = x / sqrt(mean(x²) + eps) · weight` for each row of `hidden` elements, a multiple of 8; weight is
/// `[1][hidden]`.
pub fn rmsnorm(
    queue: &Queue,
    x: Rows<'_, bf16>,
    weight: Rows<'_, bf16>,
    eps: f32,
    out: &mut RowsMut<'_, bf16>,
) -> Result<(), LaunchError> {
    let params = params("rmsnorm", x, x, weight, eps, out.view)?;
    // SAFETY: the views cover every row that the kernel touches.
    unsafe { queue.gpu().kernels().rmsnorm.launch(queue, grid(x.rows), params) }
}

/// `residual += x`, rounded to bf16, then the norm of that into `out`.
pub fn add_rmsnorm(
    queue: &Queue,
    x: Rows<'_, bf16>,
    residual: &mut RowsMut<'_, bf16>,
    weight: Rows<'_, bf16>,
    eps: f32,
    out: &mut RowsMut<'_, bf16>,
) -> Result<(), LaunchError> {
    let params = params("add_rmsnorm", x, residual.view, weight, eps, out.view)?;
    // SAFETY: the views cover every row that the kernel touches.
    unsafe { queue.gpu().kernels().add_rmsnorm.launch(queue, grid(x.rows), params) }
}

fn grid(tokens: usize) -> Grid {
    Grid { blocks: [tokens, 1, 1], threads: THREADS, shared: 0 }
}

fn params(
    kernel: &'static str,
    x: Rows<'_, bf16>,
    residual: Rows<'_, bf16>,
    weight: Rows<'_, bf16>,
    eps: f32,
    out: Rows<'_, bf16>,
) -> Result<RmsNormParams, LaunchError> {
    let same = |rows: Rows<'_, bf16>| rows.rows == x.rows && rows.columns == x.columns;
    require(kernel, same(residual) && same(out) && (weight.rows, weight.columns) == (1, x.columns), || {
        format!(
            "{} x {} with a weight of {} into {} x {}",
            x.rows, x.columns, weight.columns, out.rows, out.columns
        )
    })?;
    require(kernel, x.columns > 0 && [x, residual, weight, out].iter().all(Rows::vectors), || {
        format!(
            "rows of {} elements, {} and {} apart, are not 16-byte aligned",
            x.columns, x.stride, out.stride
        )
    })?;
    Ok(RmsNormParams {
        x: x.address,
        residual: residual.address,
        weight: weight.address,
        out: out.address,
        x_stride: x.stride as u64,
        residual_stride: residual.stride as u64,
        out_stride: out.stride as u64,
        hidden: x.columns as u32,
        eps,
    })
}
