//! Attention of one new token per sequence over its pages, shared by the blocks of a cluster.
#![allow(unsafe_code)]

use half::bf16;

use crate::launch::{Grid, LaunchError, Params, require};
use crate::pages::{KvElement, KvPages, PageTable, PageTableParams, PagesParams};
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecodeParams {
    q: u64,
    out: u64,
    table: PageTableParams,
    pages: PagesParams,
    q_heads: u32,
    splits: u32,
    window: u32,
    scale_log2: f32,
}

// SAFETY: as in cu/attention/decode.cuh.
unsafe impl Params for DecodeParams {
    const UNIT: &'static str = "decode";
}

const THREADS: u32 = 128;
/// Query heads that one block takes of a kv head's group.
const HEADS: usize = 8;

/// Blocks that may share a sequence.
const SPLITS: [usize; 4] = [1, 2, 4, 8];

#[derive(Debug, Clone, Copy)]
pub struct Decode<'a> {
    /// `[batch][q_heads·head_dim]`, dense; head dimension 64 or 128.
    pub q: Rows<'a, bf16>,
    /// Lengths count the new token, whose key and value are written already.
    pub table: PageTable<'a>,
    pub layer: usize,
    pub scale: f32,
    /// How many of the last tokens are seen; `None` is all.
    pub window: Option<u32>,
    /// Blocks that share a sequence: 1, 2, 4 or 8. It fixes the order of additions: results are equal bit for
    /// bit only between equal splits.
    pub splits: usize,
}

/// `out` as `q`. A sequence of length 0 gives zeros.
pub fn decode_attention<T: KvElement>(
    queue: &Queue,
    step: &Decode<'_>,
    pages: &KvPages<T>,
    out: &mut RowsMut<'_, bf16>,
) -> Result<(), LaunchError> {
    const KERNEL: &str = "decode";
    let (q, out, dim) = (step.q, out.view, pages.head_dim());
    let variant = head_variant(KERNEL, dim)?;
    let q_heads = query_heads(KERNEL, q, out, dim, pages.kv_heads())?;
    let batch = step.table.batch();
    require(KERNEL, q.rows == batch, || format!("{} queries for {batch} sequences", q.rows))?;
    require(KERNEL, SPLITS.contains(&step.splits), || {
        format!("{} splits; a cluster has 1, 2, 4 or 8 blocks", step.splits)
    })?;
    let params = DecodeParams {
        q: q.address,
        out: out.address,
        table: step.table.params(KERNEL)?,
        pages: pages.params(KERNEL, step.layer)?,
        q_heads: q_heads as u32,
        splits: step.splits as u32,
        window: step.window.unwrap_or(0),
        scale_log2: step.scale * std::f32::consts::LOG2_E,
    };
    let chunks = (q_heads / pages.kv_heads()).div_ceil(HEADS);
    let blocks = [pages.kv_heads() * chunks, step.splits, batch];
    let kernel = &queue.gpu().kernels().decode[T::VARIANT][variant];
    let grid = Grid { blocks, threads: THREADS, shared: 0 };
    // SAFETY: the views cover what the kernel touches; it checks page numbers itself.
    unsafe { kernel.launch_clustered(queue, grid, [1, step.splits as u32], params) }
}

/// Place of the head dimension among the attention kernels.
pub(crate) fn head_variant(kernel: &'static str, dim: usize) -> Result<usize, LaunchError> {
    let place = [64, 128].iter().position(|built| *built == dim);
    place.ok_or_else(|| LaunchError::Shape {
        kernel,
        problem: format!("head dimension {dim} is neither 64 nor 128"),
    })
}

/// Query heads of dense `q` and `out` of one shape, a multiple of the kv heads.
pub(crate) fn query_heads(
    kernel: &'static str,
    q: Rows<'_, bf16>,
    out: Rows<'_, bf16>,
    dim: usize,
    kv_heads: usize,
) -> Result<usize, LaunchError> {
    require(kernel, (q.rows, q.columns) == (out.rows, out.columns) && q.dense() && out.dense(), || {
        format!("{} x {} into {} x {}, or not dense", q.rows, q.columns, out.rows, out.columns)
    })?;
    require(kernel, q.columns > 0 && q.columns.is_multiple_of(dim * kv_heads), || {
        format!("{} columns are no multiple of {kv_heads} heads of {dim}", q.columns)
    })?;
    Ok(q.columns / dim)
}
