//! Causal attention of ragged runs of new tokens over their sequences' pages.
#![allow(unsafe_code)]

use half::bf16;

use crate::decode::{head_variant, query_heads};
use crate::launch::{Grid, LaunchError, Params, require};
use crate::pages::{KvElement, KvPages, PageTable, PageTableParams, PagesParams};
use crate::queue::Queue;
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
    let params = PrefillParams {
        q: q.address,
        out: out.address,
        start: step.start.address,
        table: step.table.params(KERNEL)?,
        pages: pages.params(KERNEL, step.layer)?,
        q_heads: q_heads as u32,
        window: step.window.unwrap_or(0),
        scale_log2: step.scale * std::f32::consts::LOG2_E,
        tokens: q.rows as u32,
    };
    let grid = Grid { blocks: [step.longest.div_ceil(TILE), q_heads, batch], threads: THREADS, shared: 0 };
    // SAFETY: the views cover what the kernel touches; it cuts starts and lengths and checks page numbers.
    unsafe { queue.gpu().kernels().prefill[T::VARIANT][variant].launch(queue, grid, params) }
}
