//! Rows that leave a matrix.

use crate::simd::{LANES, Lanes};

/// `[group of 16 outputs][row]`
#[derive(Debug, Default)]
pub(crate) struct Output {
    rows: usize,
    width: usize,
    pub(super) tiles: Vec<Lanes>,
}

impl Output {
    pub(super) fn resize(&mut self, rows: usize, width: usize) {
        (self.rows, self.width) = (rows, width);
        self.tiles.resize(rows * width.div_ceil(LANES), [0.0; LANES]);
    }

    pub(super) fn groups(&self) -> usize {
        self.width.div_ceil(LANES)
    }

    /// Sixteen values of a row; those beyond the width are zero.
    #[inline]
    pub(crate) fn lanes(&self, row: usize, group: usize) -> &Lanes {
        &self.tiles[group * self.rows + row]
    }

    /// Passes the row in pieces of at most sixteen values to `f(first, values)`.
    #[inline]
    pub(crate) fn for_row(&self, row: usize, mut f: impl FnMut(usize, &[f32])) {
        for group in 0..self.groups() {
            let first = group * LANES;
            f(first, &self.lanes(row, group)[..LANES.min(self.width - first)]);
        }
    }

    pub(crate) fn copy_row(&self, row: usize, to: &mut [f32]) {
        self.for_row(row, |first, values| to[first..first + values.len()].copy_from_slice(values));
    }
}
