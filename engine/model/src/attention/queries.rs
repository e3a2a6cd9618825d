//! Queries and what has been summed for them.

use std::ops::Range;

use crate::simd::{LANES, Lanes};
use crate::step::{Pages, Row};
use crate::{KvGeometry, KvPart};

use super::page::{Run, Stored};

pub(super) type TokenRange = Range<usize>;

/// Queries of one kv head for neighbouring rows of a step.
pub(crate) struct Queries<'a> {
    pub(crate) geometry: &'a KvGeometry,
    pub(crate) layer: usize,
    pub(crate) kv_head: usize,
    /// Query heads of this kv head.
    pub(crate) heads: usize,
    pub(crate) window: Option<usize>,
    pub(crate) rows: &'a [Row],
    /// By sequence.
    pub(crate) pages: &'a [Pages],
    /// `[row][all query heads][dim]`, scaled by `1/√dim`.
    pub(crate) values: &'a [f32],
    /// Values of one row of them.
    pub(crate) stride: usize,
}

/// A query and its running softmax.
pub(super) struct Query {
    /// By groups of dimensions; those beyond the last one are zero.
    pub(super) values: Vec<Lanes>,
    /// Positions that it attends to.
    pub(super) visible: TokenRange,
    pub(super) max: f32,
    pub(super) sum: f32,
    /// Weighted values, by groups of dimensions.
    pub(super) weighted: Vec<Lanes>,
    /// Scores, then weights, of the page at hand, by groups of tokens.
    pub(super) weights: Vec<Lanes>,
}

impl Queries<'_> {
    /// One page of a kv head.
    pub(super) fn page<'a>(&self, kv_head: usize, pages: &'a Pages, index: usize) -> Stored<'a> {
        let run =
            |part| Run::new(self.geometry, &pages.get(index)[self.geometry.run(kv_head, self.layer, part)]);
        Stored { keys: run(KvPart::Key), values: run(KvPart::Value) }
    }

    /// Where the attention of the first of `rows` begins; nothing where there is no such head.
    pub(super) fn first_page(&self, kv_head: usize, rows: &[Row]) -> Stored<'_> {
        let Some(row) = rows.first().filter(|_| kv_head < self.geometry.kv_heads) else {
            return Stored::default();
        };
        let begin = (row.position + 1).saturating_sub(self.window.unwrap_or(row.position + 1));
        self.page(kv_head, &self.pages[row.sequence], begin / self.geometry.page_tokens)
    }

    /// Row by row, head by head: neighbours of one row see the same positions.
    pub(super) fn queries(&self, first: usize, rows: &[Row]) -> Vec<Query> {
        let dim = self.geometry.head_dim;
        let mut queries = Vec::with_capacity(rows.len() * self.heads);
        for (r, row) in rows.iter().enumerate() {
            let end = row.position + 1;
            let begin = end.saturating_sub(self.window.unwrap_or(end));
            for head in 0..self.heads {
                let at = (first + r) * self.stride + (self.kv_head * self.heads + head) * dim;
                queries.push(Query {
                    values: lanes(&self.values[at..at + dim]),
                    visible: begin..end,
                    max: f32::NEG_INFINITY,
                    sum: 0.0,
                    weighted: vec![[0.0; LANES]; dim.div_ceil(LANES)],
                    weights: Vec::with_capacity(self.geometry.page_tokens.div_ceil(LANES)),
                });
            }
        }
        queries
    }
}

fn lanes(values: &[f32]) -> Vec<Lanes> {
    let mut lanes = vec![[0.0; LANES]; values.len().div_ceil(LANES)];
    lanes.as_flattened_mut()[..values.len()].copy_from_slice(values);
    lanes
}
