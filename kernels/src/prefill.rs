//! Causal attention of ragged runs of new tokens over their sequences' pages.
#![allow(unsafe_code)]

use cudarc::driver::sys;
use half::bf16;

use crate::decode::{head_variant, query_heads};
use crate::launch::{Grid, LaunchError, Params, require};
use crate::pages::{KvElement, KvPages, PageTable, PageTableParams, PagesParams};
use crate::queue::Queue;
use crate::tensor_map::describe;
use crate::view::{Rows, RowsMut};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrefillParams {
    q: u64,
    out: u64,
    start: u64,
    table: PageTableParams,
    pages: PagesParams,
    q_heads: u32,
    window: u32,
    scale_log2: f32,
    tokens: u32,
}

// SAFETY: as in cu/attention/prefill.cuh.
unsafe impl Params for PrefillParams {
    const UNIT: &'static str = "prefill";
}

const THREADS: u32 = 128;
/// Queries of one head that a block takes.
const TILE: usize = 64;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct HopperParams {
    q: sys::CUtensorMap,
    arena: sys::CUtensorMap,
    out: u64,
    start: u64,
    table: PageTableParams,
    pages: PagesParams,
    q_heads: u32,
    window: u32,
    scale_log2: f32,
    tokens: u32,
}

// SAFETY: as in cu/attention/prefill_hopper.cuh.
unsafe impl Params for HopperParams {
    const UNIT: &'static str = "prefill_hopper";
}

/// As in `cu/attention/prefill_hopper.cuh`.
const HOPPER_THREADS: u32 = 384;
const HOPPER_TILE: usize = 128;
/// Rows of both its boxes.
const BOX_ROWS: usize = 64;
/// Tiles in shared memory: queries, and keys and values of two stages, each of 128 rows.
const TILES: usize = 5;

/// Dynamic shared memory of the kernel for a head dimension: its tiles, and what aligns them.
pub(crate) fn hopper_shared(dim: usize) -> u32 {
    (TILES * HOPPER_TILE * dim * 2 + 1024) as u32
}

#[derive(Debug, Clone, Copy)]
pub struct Prefill<'a> {
    /// `[tokens][q_heads·head_dim]`, dense; head dimension 64 or 128.
    pub q: Rows<'a, bf16>,
    /// `[1][batch + 1]`: sequence b owns rows `start[b]..start[b + 1]`.
    pub start: Rows<'a, u32>,
    /// The largest number of new tokens of any sequence; rows past it are not computed.
    pub longest: usize,
    /// Lengths count the new tokens, whose keys and values are written already.
    pub table: PageTable<'a>,
    pub layer: usize,
    pub scale: f32,
    /// How many tokens up to its own each token sees; `None` is all.
    pub window: Option<u32>,
}

/// `out` as `q`.
pub fn prefill_attention<T: KvElement>(
    queue: &Queue,
    step: &Prefill<'_>,
    pages: &KvPages<T>,
    out: &mut RowsMut<'_, bf16>,
) -> Result<(), LaunchError> {
    const KERNEL: &str = "prefill";
    let (q, out, dim) = (step.q, out.view, pages.head_dim());
    let variant = head_variant(KERNEL, dim)?;
    let q_heads = query_heads(KERNEL, q, out, dim, pages.kv_heads())?;
    let batch = step.table.batch();
    require(KERNEL, step.start.rows == 1 && step.start.columns == batch + 1, || {
        format!("{} starts for {batch} sequences", step.start.columns)
    })?;
    require(KERNEL, step.longest <= q.rows && q.rows < i32::MAX as usize, || {
        format!("a run of {} among {} tokens", step.longest, q.rows)
    })?;
    let run = Run { q_heads, batch, variant, table: step.table.params(KERNEL)? };
    // SAFETY: the views cover what the kernels touch; they cut starts and lengths and check page numbers.
    unsafe {
        if T::VARIANT == bf16::VARIANT {
            launch_hopper(queue, step, pages, out, &run)
        } else {
            launch_any(queue, step, pages, out, &run)
        }
    }
}

/// What was found while the shapes were checked.
struct Run {
    q_heads: usize,
    batch: usize,
    /// Place of the head dimension.
    variant: usize,
    table: PageTableParams,
}

/// The kernel for pages of either type.
unsafe fn launch_any<T: KvElement>(
    queue: &Queue,
    step: &Prefill<'_>,
    pages: &KvPages<T>,
    out: Rows<'_, bf16>,
    run: &Run,
) -> Result<(), LaunchError> {
    let params = PrefillParams {
        q: step.q.address,
        out: out.address,
        start: step.start.address,
        table: run.table,
        pages: pages.params("prefill", step.layer)?,
        q_heads: run.q_heads as u32,
        window: step.window.unwrap_or(0),
        scale_log2: step.scale * std::f32::consts::LOG2_E,
        tokens: step.q.rows as u32,
    };
    let blocks = [step.longest.div_ceil(TILE), run.q_heads, run.batch];
    let grid = Grid { blocks, threads: THREADS, shared: 0 };
    // SAFETY: as the caller promises.
    unsafe { queue.gpu().kernels().prefill[run.variant].launch(queue, grid, params) }
}

/// The kernel on warpgroups, for pages of bf16.
unsafe fn launch_hopper<T: KvElement>(
    queue: &Queue,
    step: &Prefill<'_>,
    pages: &KvPages<T>,
    out: Rows<'_, bf16>,
    run: &Run,
) -> Result<(), LaunchError> {
    const KERNEL: &str = "prefill_hopper";
    let (q, dim) = (step.q, pages.head_dim());
    let rows = pages.buffer().len() / dim;
    require(KERNEL, i32::try_from(rows).is_ok(), || {
        format!("{rows} rows of keys and values are more than the copy engine counts")
    })?;
    if q.rows == 0 {
        return Ok(());
    }
    let params = HopperParams {
        q: describe(q.address, [q.columns, q.rows], BOX_ROWS)?,
        arena: describe(pages.buffer().address(), [dim, rows], BOX_ROWS)?,
        out: out.address,
        start: step.start.address,
        table: run.table,
        pages: pages.params(KERNEL, step.layer)?,
        q_heads: run.q_heads as u32,
        window: step.window.unwrap_or(0),
        scale_log2: step.scale * std::f32::consts::LOG2_E,
        tokens: q.rows as u32,
    };
    let blocks = [run.q_heads, step.longest.div_ceil(HOPPER_TILE), run.batch];
    let grid = Grid { blocks, threads: HOPPER_THREADS, shared: hopper_shared(dim) };
    // SAFETY: as the caller promises.
    unsafe { queue.gpu().kernels().prefill_hopper[run.variant].launch(queue, grid, params) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_one_block_of_a_multiprocessor() {
        assert_eq!([64, 128].map(hopper_shared), [82_944, 164_864]);
        assert!(hopper_shared(128) <= 227 << 10);
    }
}
