//! The step from one token of a decode batch to the next, without the host.
#![allow(unsafe_code)]

use crate::launch::{Grid, LaunchError, Params, require};
use crate::pages::KvPages;
use crate::queue::Queue;
use crate::view::{Rows, RowsMut};

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdvanceParams {
    page: u64,
    stride: u64,
    length: u64,
    position: u64,
    slot: u64,
    index: u64,
    columns: u32,
    pages: u32,
    batch: u32,
    padding: u32,
}

// SAFETY: as in cu/sampling/advance.cu.
unsafe impl Params for AdvanceParams {
    const UNIT: &'static str = "advance";
}

/// Where the sequences of a decode batch stand; each `[1][batch]`.
#[derive(Debug)]
pub struct Standing<'a, 'b> {
    /// Tokens in the pages once the next step has run. 0 is a padding row.
    pub lengths: &'a mut RowsMut<'b, u32>,
    pub positions: &'a mut RowsMut<'b, u32>,
    pub slots: &'a mut RowsMut<'b, u32>,
    /// Of the next draw.
    pub indices: &'a mut RowsMut<'b, u32>,
}

/// Moves every sequence of length > 0 one token on; `table` is `[batch][pages]`. A sequence without a page
/// for its new position gets no slot, so that its key and value are written nowhere.
pub fn advance<T: crate::KvElement>(
    queue: &Queue,
    table: Rows<'_, u32>,
    pages: &KvPages<T>,
    standing: &mut Standing<'_, '_>,
) -> Result<(), LaunchError> {
    let Standing { lengths, positions, slots, indices } = standing;
    let fits = |rows: &RowsMut<'_, u32>| rows.view.rows == 1 && rows.view.columns == table.rows;
    require("advance", fits(lengths) && fits(positions) && fits(slots) && fits(indices), || {
        format!("{} lengths for {} rows of pages", lengths.view.columns, table.rows)
    })?;
    let params = AdvanceParams {
        page: table.address,
        stride: table.stride as u64,
        length: lengths.view.address,
        position: positions.view.address,
        slot: slots.view.address,
        index: indices.view.address,
        columns: table.columns as u32,
        pages: pages.pages() as u32,
        batch: table.rows as u32,
        padding: 0,
    };
    let grid = Grid { blocks: [table.rows.div_ceil(256), 1, 1], threads: 256, shared: 0 };
    // SAFETY: the views cover every row that the kernel touches.
    unsafe { queue.gpu().kernels().advance.launch(queue, grid, params) }
}
