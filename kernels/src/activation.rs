//! The gated activation between the two halves of the feed-forward layer.
#![allow(unsafe_code)]

use half::bf16;

use crate::launch::{Grid, LaunchError, Params, require};
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SiluMulParams {
    input: u64,
    out: u64,
    in_stride: u64,
    out_stride: u64,
    width: u32,
    tokens: u32,
}

// SAFETY: as in cu/activation/silu_mul.cu.
unsafe impl Params for SiluMulParams {
    const UNIT: &'static str = "silu_mul";
}

/// `out[t][i] = silu(gate) · up`: `gate_up` is `[tokens][2·width]`, eight gates and the eight ups that belong
/// to them in turn; out `[tokens][width]`, width a multiple of 8, rows 16-byte aligned.
pub fn silu_mul(
    queue: &Queue,
    gate_up: Rows<'_, bf16>,
    out: &mut RowsMut<'_, bf16>,
) -> Result<(), LaunchError> {
    const KERNEL: &str = "silu_mul";
    let out = out.view;
    require(KERNEL, gate_up.rows == out.rows && gate_up.columns == 2 * out.columns, || {
        format!("{} x {} into {} x {}", gate_up.rows, gate_up.columns, out.rows, out.columns)
    })?;
    require(KERNEL, gate_up.vectors() && out.vectors(), || {
        format!("rows {} (in) and {} (out) apart are not 16-byte aligned", gate_up.stride, out.stride)
    })?;
    let params = SiluMulParams {
        input: gate_up.address,
        out: out.address,
        in_stride: gate_up.stride as u64,
        out_stride: out.stride as u64,
        width: out.columns as u32,
        tokens: out.rows as u32,
    };
    let blocks = [(out.columns / 8).div_ceil(256), out.rows.min(65535), 1];
    // SAFETY: the views cover every row that the kernel touches.
    unsafe { queue.gpu().kernels().silu_mul.launch(queue, Grid { blocks, threads: 256, shared: 0 }, params) }
}
