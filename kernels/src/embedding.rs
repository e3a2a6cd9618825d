//! Token embedding: rows of a table by id.
#![allow(unsafe_code)]

use half::bf16;

use crate::launch::{Grid, LaunchError, Params, require};
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatherParams {
    table: u64,
    ids: u64,
    out: u64,
    table_stride: u64,
    out_stride: u64,
    vocab: u32,
    hidden: u32,
}

// SAFETY: as in cu/embedding/gather.cu.
unsafe impl Params for GatherParams {
    const UNIT: &'static str = "gather";
}

/// `out[t] = table[ids[t]]`: table `[vocab][hidden]`, ids `[1][tokens]`, out `[tokens][hidden]`, hidden a
/// multiple of 8, rows 16-byte aligned. An id outside the table gives a row of NaN.
pub fn gather(
    queue: &Queue,
    table: Rows<'_, bf16>,
    ids: Rows<'_, u32>,
    out: &mut RowsMut<'_, bf16>,
) -> Result<(), LaunchError> {
    const KERNEL: &str = "gather";
    let out = out.view;
    require(KERNEL, ids.rows == 1 && ids.columns == out.rows && table.columns == out.columns, || {
        format!("{} ids of {}-wide rows into {} x {}", ids.columns, table.columns, out.rows, out.columns)
    })?;
    require(KERNEL, table.rows > 0 && table.vectors() && out.vectors(), || {
        format!("rows of {} (table) and {} (out) are not 16-byte aligned", table.stride, out.stride)
    })?;
    let params = GatherParams {
        table: table.address,
        ids: ids.address,
        out: out.address,
        table_stride: table.stride as u64,
        out_stride: out.stride as u64,
        vocab: table.rows as u32,
        hidden: table.columns as u32,
    };
    let grid = Grid { blocks: [out.rows, 1, 1], threads: 128, shared: 0 };
    // SAFETY: the views cover every row that the kernel touches.
    unsafe { queue.gpu().kernels().gather.launch(queue, grid, params) }
}
