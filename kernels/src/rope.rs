//! Query and key norm, rotary embedding, and the write of keys and values into their pages, in one pass.
#![allow(unsafe_code)]

use half::bf16;

use crate::decode::head_variant;
use crate::launch::{Function, Grid, LaunchError, Params, require};
use crate::pages::{KvElement, KvPages, PagesParams};
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct QkRopeParams {
    qkv: u64,
    q_norm: u64,
    k_norm: u64,
    cos: u64,
    sin: u64,
    position: u64,
    slot: u64,
    q_out: u64,
    pages: PagesParams,
    qkv_stride: u64,
    tokens: u32,
    q_heads: u32,
    positions: u32,
    eps: f32,
}

// SAFETY: as in cu/rope/qk_rope_write.cuh.
unsafe impl Params for QkRopeParams {
    const UNIT: &'static str = "qk_rope_write";
}

const KERNEL: &str = "qk_rope_write";
const THREADS: usize = 128;
/// Elements of a head that one thread owns.
const EACH: usize = 16;

/// A slot that no key or value is written to.
pub const NO_SLOT: u32 = u32::MAX;

/// Kernels by pairing (half, interleaved), then by page element (bf16, f16), then by head dimension (64, 128).
pub(crate) type Kernels = [[[Function<QkRopeParams>; 2]; 2]; 2];

/// Which two elements of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// `(i, i + head_dim / 2)`.
    Half,
    /// `(2i, 2i + 1)`.
    Interleaved,
}

/// Cosines and sines of every position, scaling included: `[positions][head_dim / 2]`, dense.
#[derive(Debug, Clone, Copy)]
pub struct RopeTables<'a> {
    pub cos: Rows<'a, f32>,
    pub sin: Rows<'a, f32>,
}

/// One step's tokens on their way to attention.
#[derive(Debug)]
pub struct QkRope<'a> {
    /// `[tokens][(q_heads + 2·kv_heads)·head_dim]`: queries, then keys, then values.
    pub qkv: Rows<'a, bf16>,
    /// Weights of the query and key norm, `[1][head_dim]`, and its epsilon.
    pub norm: Option<(Rows<'a, bf16>, Rows<'a, bf16>, f32)>,
    pub tables: RopeTables<'a>,
    pub pairing: Pairing,
    /// `[1][tokens]`. A position past the tables gives NaN.
    pub positions: Rows<'a, u32>,
    /// `[1][tokens]`: `page · 64 + offset`. [`NO_SLOT`], or any slot past the last page, writes nothing.
    pub slots: Rows<'a, u32>,
}

/// Writes queries to `q_out`, `[tokens][q_heads·head_dim]` dense, and keys and values to `layer` of their
/// pages. `head_dim` is 64 or 128; all rows are 16-byte aligned.
pub fn qk_rope_write<T: KvElement>(
    queue: &Queue,
    step: &QkRope<'_>,
    pages: &mut KvPages<T>,
    layer: usize,
    q_out: &mut RowsMut<'_, bf16>,
) -> Result<(), LaunchError> {
    let variant = head_variant(KERNEL, pages.head_dim())?;
    let params = params(step, pages, layer, q_out.view)?;
    let heads = params.q_heads as usize + 2 * pages.kv_heads();
    let work = step.qkv.rows * heads * (pages.head_dim() / EACH);
    require(KERNEL, i32::try_from(work).is_ok(), || format!("{work} threads for all heads are too many"))?;
    let grid = Grid { blocks: [work.div_ceil(THREADS), 1, 1], threads: THREADS as u32, shared: 0 };
    let pairing = usize::from(step.pairing == Pairing::Interleaved);
    let kernel = &queue.gpu().kernels().rope[pairing][T::VARIANT][variant];
    // SAFETY: the views cover every row that the kernel touches, and it checks slots against the pages.
    unsafe { kernel.launch(queue, grid, params) }
}

fn params<T: KvElement>(
    step: &QkRope<'_>,
    pages: &KvPages<T>,
    layer: usize,
    q_out: Rows<'_, bf16>,
) -> Result<QkRopeParams, LaunchError> {
    let QkRope { qkv, norm, tables, pairing: _, positions, slots } = step;
    let (tokens, dim) = (qkv.rows, pages.head_dim());
    require(KERNEL, tables.cos.columns * 2 == dim, || {
        format!("rotations of {} elements for heads of {dim}", tables.cos.columns * 2)
    })?;
    require(
        KERNEL,
        q_out.rows == tokens && q_out.dense() && q_out.columns > 0 && q_out.columns.is_multiple_of(dim),
        || format!("queries of {} x {} are no dense heads of {dim}", q_out.rows, q_out.columns),
    )?;
    require(KERNEL, qkv.columns == q_out.columns + 2 * pages.kv_heads() * dim, || {
        format!("{} columns of qkv for {} of q and {} kv heads", qkv.columns, q_out.columns, pages.kv_heads())
    })?;
    let Rows { rows, columns, .. } = tables.cos;
    require(
        KERNEL,
        rows > 0
            && (tables.sin.rows, tables.sin.columns) == (rows, columns)
            && tables.cos.dense()
            && tables.sin.dense(),
        || "cosines and sines differ in shape, are empty or not dense".into(),
    )?;
    let (q, k) = norm.map_or((q_out, q_out), |(q, k, _)| (q, k));
    let aligned =
        [*qkv, q_out, q, k].iter().all(Rows::vectors) && tables.cos.vectors() && tables.sin.vectors();
    require(KERNEL, aligned, || format!("rows, {} elements apart, are not 16-byte aligned", qkv.stride))?;
    let per_token = |rows: &Rows<'_, u32>| rows.rows == 1 && rows.columns == tokens;
    require(KERNEL, per_token(positions) && per_token(slots), || {
        format!("{} positions and {} slots for {tokens} tokens", positions.columns, slots.columns)
    })?;
    let weights = norm.map_or([0; 2], |(q, k, _)| [q.address, k.address]);
    require(
        KERNEL,
        norm.is_none_or(|(q, k, _)| q.columns == dim && k.columns == dim && q.rows.min(k.rows) == 1),
        || format!("norm weights are not of {dim} elements"),
    )?;
    Ok(QkRopeParams {
        qkv: qkv.address,
        q_norm: weights[0],
        k_norm: weights[1],
        cos: tables.cos.address,
        sin: tables.sin.address,
        position: positions.address,
        slot: slots.address,
        q_out: q_out.address,
        pages: pages.params(KERNEL, layer)?,
        qkv_stride: qkv.stride as u64,
        tokens: tokens as u32,
        q_heads: (q_out.columns / dim) as u32,
        positions: rows as u32,
        eps: norm.map_or(0.0, |(_, _, eps)| eps),
    })
}
