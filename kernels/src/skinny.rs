//! Matrix products of few tokens: one read of the weight, with what follows the product done in place.
#![allow(unsafe_code)]

use half::bf16;

use crate::batched::{self, Batch};
use crate::launch::{Function, Grid, LaunchError, Params, require};
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SkinnyParams {
    x: u64,
    weight: u64,
    out: u64,
    tokens: u32,
    outputs: u32,
    inputs: u32,
    slices: u32,
}

// SAFETY: as in cu/gemm/skinny.cuh.
unsafe impl Params for SkinnyParams {
    const UNIT: &'static str = "skinny";
}

/// Most tokens of a product.
pub const SKINNY_TOKENS: usize = 128;
const THREADS: u32 = 256;
const WARPS: usize = 8;

/// One of the kernels, as it was instantiated in cu/gemm/skinny.cu.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    pub(crate) tokens: usize,
    /// Tiles of 16 rows that a warp owns, and warps beside each other along the rows.
    tiles: usize,
    row_warps: usize,
    /// Blocks that a multiprocessor holds.
    resident: usize,
}

pub(crate) const VARIANTS: [Variant; 3] = [
    Variant { tokens: 8, tiles: 1, row_warps: 1, resident: 2 },
    Variant { tokens: 8, tiles: 1, row_warps: 1, resident: 3 },
    Variant { tokens: 16, tiles: 1, row_warps: 2, resident: 2 },
];

/// Kernels of each variant, by finish: store, add, wide, silu.
pub(crate) type Kernels = [[Function<SkinnyParams>; 4]; 3];

impl Variant {
    fn rows(self) -> usize {
        self.tiles * 16 * self.row_warps
    }

    /// The size of the sums in shared memory.
    pub(crate) fn shared(self) -> u32 {
        (WARPS / self.row_warps * self.tokens * (self.rows() + 4) * 4) as u32
    }

    /// Blocks that share the inputs of one tile: as many as the device holds at once, at most the 8 of a
    /// cluster, each with 16 rows to finish and inputs to read.
    fn slices(self, outputs: usize, inputs: usize, multiprocessors: usize) -> usize {
        let tiles = outputs.div_ceil(self.rows());
        let fits = |slices: &usize| {
            tiles * slices <= multiprocessors * self.resident
                && slices * 16 <= self.rows()
                && slices * WARPS / self.row_warps <= inputs / 32
        };
        [8, 4, 2].into_iter().find(fits).unwrap_or(1)
    }

    /// A block for each slice of each tile, but no more than the device holds: blocks take tile after tile.
    fn blocks(self, outputs: usize, slices: usize, multiprocessors: usize) -> usize {
        let held = multiprocessors * self.resident / slices;
        outputs.div_ceil(self.rows()).min(held.max(1)) * slices
    }
}

/// The kernel for so many tokens. Of two for the same tokens the second has fewer reads under way but three
/// blocks on a multiprocessor: it is better where that saves a second, mostly empty wave.
fn place(tokens: usize, outputs: usize, multiprocessors: usize) -> Option<usize> {
    let blocks = outputs.div_ceil(VARIANTS[1].rows());
    if tokens <= VARIANTS[1].tokens && (2 * multiprocessors + 1..=3 * multiprocessors).contains(&blocks) {
        return Some(1);
    }
    VARIANTS.iter().position(|variant| tokens <= variant.tokens)
}

/// What becomes of the sums.
#[derive(Debug)]
pub enum SkinnyOut<'a, 'b> {
    /// `[tokens][outputs]`
    Store(&'a mut RowsMut<'b, bf16>),
    /// As `Store`, added to what is there.
    Add(&'a mut RowsMut<'b, bf16>),
    /// As `Store`, in f32.
    Wide(&'a mut RowsMut<'b, f32>),
    /// `silu(gate) · up` into `[tokens][outputs / 2]`; the weight has eight rows of gate and eight of up in
    /// turn.
    Silu(&'a mut RowsMut<'b, bf16>),
}

/// Whether [`skinny`] can run a product of this shape.
pub fn skinny_fits(tokens: usize, outputs: usize, inputs: usize) -> bool {
    (1..=SKINNY_TOKENS).contains(&tokens)
        && outputs > 0
        && outputs.is_multiple_of(32)
        && inputs > 0
        && inputs.is_multiple_of(32)
}

/// `x[tokens][inputs] · weight[outputs][inputs]ᵀ`, all dense, sums in f32 in an order that depends on the
/// shape and the device alone. At most [`SKINNY_TOKENS`] tokens; outputs and inputs multiples of 32.
pub fn skinny(
    queue: &Queue,
    x: Rows<'_, bf16>,
    weight: Rows<'_, bf16>,
    out: SkinnyOut<'_, '_>,
) -> Result<(), LaunchError> {
    const KERNEL: &str = "skinny";
    let (tokens, outputs, inputs) = (x.rows, weight.rows, weight.columns);
    let (finish, address, rows, columns, dense) = match out {
        SkinnyOut::Store(out) => (0, out.view.address, out.view.rows, out.view.columns, out.view.dense()),
        SkinnyOut::Add(out) => (1, out.view.address, out.view.rows, out.view.columns, out.view.dense()),
        SkinnyOut::Wide(out) => (2, out.view.address, out.view.rows, out.view.columns, out.view.dense()),
        SkinnyOut::Silu(out) => (3, out.view.address, out.view.rows, 2 * out.view.columns, out.view.dense()),
    };
    require(KERNEL, x.columns == inputs && rows == tokens && columns == outputs, || {
        format!("{tokens} x {} by {outputs} x {inputs} into {rows} x {columns}", x.columns)
    })?;
    require(KERNEL, skinny_fits(tokens, outputs, inputs), || {
        format!("{tokens} tokens of {inputs} into {outputs}: at most 128 tokens, the others multiples of 32")
    })?;
    require(KERNEL, dense && [x, weight].iter().all(|rows| rows.dense() && rows.vectors()), || {
        "an operand is not dense, or not 16-byte aligned".into()
    })?;
    let multiprocessors = queue.gpu().multiprocessors();
    let Some(place) = place(tokens, outputs, multiprocessors) else {
        let batch = Batch { x: x.address, weight: weight.address, out: address, tokens, outputs, inputs };
        // SAFETY: the views are dense and of the shape that the kernel is told.
        return unsafe { batched::launch(queue, finish, &batch) };
    };
    let variant = VARIANTS[place];
    let slices = variant.slices(outputs, inputs, multiprocessors);
    let params = SkinnyParams {
        x: x.address,
        weight: weight.address,
        out: address,
        tokens: tokens as u32,
        outputs: outputs as u32,
        inputs: inputs as u32,
        slices: slices as u32,
    };
    let blocks = [variant.blocks(outputs, slices, multiprocessors), 1, 1];
    let grid = Grid { blocks, threads: THREADS, shared: variant.shared() };
    // SAFETY: the views are dense and of the shape that the kernel is told.
    unsafe {
        queue.gpu().kernels().skinny[place][finish].launch_clustered(queue, grid, [slices as u32, 1], params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_fill_the_device_and_no_more() {
        let slices = |tokens: usize, outputs, inputs| {
            VARIANTS[place(tokens, outputs, 132).expect("a variant")].slices(outputs, inputs, 132)
        };
        assert_eq!([slices(1, 4096, 4096), slices(1, 28672, 4096)], [1, 1]);
        assert_eq!([slices(16, 4096, 4096), slices(16, 6144, 4096)], [2, 1]);
        assert_eq!(slices(16, 256, 128), 1, "each slice has inputs");
        let blocks = |tokens: usize, outputs, slices| {
            VARIANTS[place(tokens, outputs, 132).expect("a variant")].blocks(outputs, slices, 132)
        };
        assert_eq!([blocks(1, 4096, 1), blocks(1, 6144, 1), blocks(1, 28672, 1)], [256, 384, 264]);
        assert_eq!(blocks(16, 4096, 2), 256);
        assert_eq!([4096, 6144, 28672].map(|outputs| place(8, outputs, 132)), [Some(0), Some(1), Some(0)]);
        assert_eq!([9, 17].map(|tokens| place(tokens, 6144, 132)), [Some(2), None]);
    }
}
