//! A token drawn from each row of logits: by temperature, seed and index, or greedily.
#![allow(unsafe_code)]

use crate::argmax::{self, ArgmaxScratch};
use crate::launch::{LaunchError, Params, require};
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct DrawParams {
    logits: u64,
    temperature: u64,
    index: u64,
    seed_low: u64,
    seed_high: u64,
    partial: u64,
    stride: u64,
    vocab: u32,
    parts: u32,
}

// SAFETY: as in cu/sampling/draw.cu.
unsafe impl Params for DrawParams {
    const UNIT: &'static str = "draw";
}

/// How each row draws; each `[1][rows]`.
#[derive(Debug, Clone, Copy)]
pub struct Draws<'a> {
    /// Bits of an f32; 0 takes the largest logit.
    pub temperatures: Rows<'a, u32>,
    /// Which draw of its seed it is.
    pub indices: Rows<'a, u32>,
    /// The low and the high half of each seed.
    pub seeds: [Rows<'a, u32>; 2],
}

/// `ids[r]` is a draw from the softmax of row r of `logits`, `[rows][vocab]`, the same for the same logits, temperature,
/// seed and index: see [`crate::reference::gumbel`]. NaN never wins; a row of NaN alone gives `u32::MAX`.
pub fn draw(
    queue: &Queue,
    logits: Rows<'_, f32>,
    draws: Draws<'_>,
    scratch: &mut ArgmaxScratch,
    ids: &mut RowsMut<'_, u32>,
) -> Result<(), LaunchError> {
    let Draws { temperatures, indices, seeds: [low, high] } = draws;
    let fits = |numbers: &Rows<'_, u32>| numbers.rows == 1 && numbers.columns == logits.rows;
    require("draw", [temperatures, indices, low, high].iter().all(fits), || {
        format!("numbers of {} draws for {} rows", temperatures.columns, logits.rows)
    })?;
    argmax::by_parts(queue, "draw", logits, scratch, ids.view, |parts, partial, grid| {
        let params = DrawParams {
            logits: logits.address,
            temperature: temperatures.address,
            index: indices.address,
            seed_low: low.address,
            seed_high: high.address,
            partial,
            stride: logits.stride as u64,
            vocab: logits.columns as u32,
            parts,
        };
        // SAFETY: the views cover every row that the kernel reads, and the scratch what it writes.
        unsafe { queue.gpu().kernels().draw.launch(queue, grid, params) }
    })
}
