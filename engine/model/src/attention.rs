//! Attention of a few queries over paged f16 keys and values.
//!
//! Each query takes the pages of its range in order of position with a running softmax; a page's border
//! and a query's arithmetic depend on positions alone, so neither chunks nor neighbours change a bit.
//! A page is widened to f32 once for all queries: keys transposed (lanes are tokens), values as they are
//! (lanes are dimensions).

use std::ops::Range;

use crate::simd::{Isa, Kernel, LANES, Lanes, exp, sum};
use crate::step::{Pages, Row};
use crate::{KvGeometry, KvPart};

/// Computes `out`, `[row][head][dim]`.
pub(crate) struct Attend<'a> {
    pub(crate) of: Queries<'a>,
    pub(crate) out: &'a mut [f32],
}

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

impl Kernel for Attend<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let mut scratch = Scratch::new(self.of.geometry);
        let out_stride = self.of.heads * self.of.geometry.head_dim;
        let Self { out, of } = self;
        let mut first = 0;
        for rows in of.rows.chunk_by(|a, b| a.sequence == b.sequence) {
            let mut queries = of.queries(first, rows);
            attend(s, &of, &of.pages[rows[0].sequence], &mut queries, &mut scratch);
            let out = out[first * out_stride..].chunks_mut(of.geometry.head_dim);
            for (query, out) in queries.iter().zip(out) {
                finish(s, query, out);
            }
            first += rows.len();
        }
    }
}

/// A query and its running softmax.
struct Query<'a> {
    values: &'a [f32],
    /// Positions that it attends to.
    visible: Range<usize>,
    max: f32,
    sum: f32,
    /// Weighted values, by groups of dimensions.
    weighted: Vec<Lanes>,
}

impl Queries<'_> {
    /// Row by row, head by head: neighbours of one row see the same positions.
    fn queries(&self, first: usize, rows: &[Row]) -> Vec<Query<'_>> {
        let dim = self.geometry.head_dim;
        let mut queries = Vec::with_capacity(rows.len() * self.heads);
        for (r, row) in rows.iter().enumerate() {
            let end = row.position + 1;
            let begin = end.saturating_sub(self.window.unwrap_or(end));
            for head in 0..self.heads {
                let at = (first + r) * self.stride + (self.kv_head * self.heads + head) * dim;
                queries.push(Query {
                    values: &self.values[at..at + dim],
                    visible: begin..end,
                    max: f32::NEG_INFINITY,
                    sum: 0.0,
                    weighted: vec![[0.0; LANES]; dim.div_ceil(LANES)],
                });
            }
        }
        queries
    }
}

/// A page in f32.
struct Scratch {
    /// `[dim][group of tokens]`
    keys: Vec<Lanes>,
    /// `[token][group of dims]`
    values: Vec<Lanes>,
    /// `[query][group of tokens]`, for up to `TOGETHER` queries.
    weights: Vec<Lanes>,
}

/// Queries computed side by side; they see the same tokens of a page.
const TOGETHER: usize = 4;

impl Scratch {
    fn new(geometry: &KvGeometry) -> Self {
        let token_groups = geometry.page_tokens.div_ceil(LANES);
        let dim_groups = geometry.head_dim.div_ceil(LANES);
        Self {
            keys: vec![[0.0; LANES]; dim_groups * LANES * token_groups],
            values: vec![[0.0; LANES]; geometry.page_tokens * dim_groups],
            weights: vec![[0.0; LANES]; TOGETHER * token_groups],
        }
    }
}

#[inline(always)]
fn attend<S: Isa>(s: S, task: &Queries<'_>, pages: &Pages, queries: &mut [Query<'_>], scratch: &mut Scratch) {
    let geometry = task.geometry;
    let begin = queries.iter().map(|q| q.visible.start).min().unwrap_or(0);
    let end = queries.iter().map(|q| q.visible.end).max().unwrap_or(0);
    let run = |page, part| &pages.get(page)[geometry.run(task.kv_head, task.layer, part)];
    let page_end = end.div_ceil(geometry.page_tokens);
    for page in begin / geometry.page_tokens..page_end {
        s.prefetch(run(page, KvPart::Value));
        let first = page * geometry.page_tokens;
        let filled = geometry.page_tokens.min(end - first);
        widen_keys(s, geometry, run(page, KvPart::Key), filled, &mut scratch.keys);
        if page + 1 < page_end {
            s.prefetch(run(page + 1, KvPart::Key));
        }
        widen_values(s, geometry, run(page, KvPart::Value), filled, &mut scratch.values);
        let seen = |q: &Query<'_>| {
            let inside = |position: usize| position.clamp(first, first + geometry.page_tokens) - first;
            inside(q.visible.start)..inside(q.visible.end)
        };
        for same in queries.chunk_by_mut(|a, b| a.visible == b.visible || seen(a) == seen(b)) {
            let tokens = seen(&same[0]);
            if tokens.is_empty() {
                continue;
            }
            for together in same.chunks_mut(TOGETHER) {
                match together {
                    [a, b, c, d] => add_page(s, geometry, scratch, tokens.clone(), [a, b, c, d]),
                    [a, b, c] => add_page(s, geometry, scratch, tokens.clone(), [a, b, c]),
                    [a, b] => add_page(s, geometry, scratch, tokens.clone(), [a, b]),
                    [a] => add_page(s, geometry, scratch, tokens.clone(), [a]),
                    _ => {}
                }
            }
        }
    }
}

/// Sixteen f16 values; those beyond the slice are zero.
#[inline(always)]
fn halves(bytes: &[u8]) -> [u16; LANES] {
    if let Some(whole) = bytes.first_chunk::<{ 2 * LANES }>() {
        return std::array::from_fn(|i| u16::from_le_bytes([whole[2 * i], whole[2 * i + 1]]));
    }
    std::array::from_fn(|i| bytes.get(2 * i..2 * i + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]])))
}

#[inline(always)]
fn widen_keys<S: Isa>(s: S, geometry: &KvGeometry, run: &[u8], filled: usize, keys: &mut [Lanes]) {
    let token_groups = geometry.page_tokens.div_ceil(LANES);
    let token_bytes = geometry.head_dim * 2;
    for group in 0..filled.div_ceil(LANES) {
        for dim in (0..geometry.head_dim).step_by(LANES) {
            let mut tile = [s.splat(0.0); LANES];
            let tokens = run.chunks_exact(token_bytes).skip(group * LANES);
            for (row, token) in tile.iter_mut().zip(tokens) {
                *row = s.widen_f16(&halves(&token[2 * dim..]));
            }
            s.transpose(&mut tile);
            for (i, row) in tile.into_iter().enumerate() {
                s.store(row, &mut keys[(dim + i) * token_groups + group]);
            }
        }
    }
}

#[inline(always)]
fn widen_values<S: Isa>(s: S, geometry: &KvGeometry, run: &[u8], filled: usize, values: &mut [Lanes]) {
    let dim_groups = geometry.head_dim.div_ceil(LANES);
    let tokens = run.chunks_exact(geometry.head_dim * 2).take(filled);
    for (token, values) in tokens.zip(values.chunks_exact_mut(dim_groups)) {
        for (group, lanes) in values.iter_mut().enumerate() {
            s.store(s.widen_f16(&halves(&token[2 * LANES * group..])), lanes);
        }
    }
}

/// Adds the visible tokens of a page to `Q` queries that see the same of them.
#[inline(always)]
fn add_page<S: Isa, const Q: usize>(
    s: S,
    geometry: &KvGeometry,
    scratch: &mut Scratch,
    tokens: Range<usize>,
    mut queries: [&mut Query<'_>; Q],
) {
    let token_groups = geometry.page_tokens.div_ceil(LANES);
    let Scratch { keys, values, weights } = scratch;
    let vectors: [&[f32]; Q] = std::array::from_fn(|q| queries[q].values);
    let used = tokens.end.div_ceil(LANES);
    let mut group = 0;
    while group + 4 <= used {
        scores::<S, Q, 4>(s, keys, token_groups, group, vectors, weights);
        group += 4;
    }
    while group < used {
        scores::<S, Q, 1>(s, keys, token_groups, group, vectors, weights);
        group += 1;
    }
    let mut corrections = [0.0; Q];
    for q in 0..Q {
        let weights = &mut weights[q * token_groups..][..used];
        corrections[q] = soften(s, queries[q], weights, tokens.clone());
    }
    let dim_groups = geometry.head_dim.div_ceil(LANES);
    let weights: [&[f32]; Q] =
        std::array::from_fn(|q| &weights[q * token_groups..][..used].as_flattened()[tokens.clone()]);
    let values = &values[tokens.start * dim_groups..tokens.end * dim_groups];
    let mut group = 0;
    while group + 4 <= dim_groups {
        weigh::<S, Q, 4>(s, values, dim_groups, group, weights, corrections, &mut queries);
        group += 4;
    }
    while group < dim_groups {
        weigh::<S, Q, 1>(s, values, dim_groups, group, weights, corrections, &mut queries);
        group += 1;
    }
}

/// Dot products with the tokens of `W` groups, summed over the dimensions in order.
#[inline(always)]
fn scores<S: Isa, const Q: usize, const W: usize>(
    s: S,
    keys: &[Lanes],
    token_groups: usize,
    group: usize,
    queries: [&[f32]; Q],
    out: &mut [Lanes],
) {
    let dim = queries[0].len();
    let queries: [&[f32]; Q] = queries.map(|q| &q[..dim]);
    let mut sums = [[s.splat(0.0); W]; Q];
    for (d, keys) in keys.chunks_exact(token_groups).take(dim).enumerate() {
        let keys: [S::F; W] = std::array::from_fn(|w| s.load(&keys[group + w]));
        for q in 0..Q {
            let value = s.splat(queries[q][d]);
            for w in 0..W {
                sums[q][w] = s.fma(keys[w], value, sums[q][w]);
            }
        }
    }
    for q in 0..Q {
        for w in 0..W {
            s.store(sums[q][w], &mut out[q * token_groups + group + w]);
        }
    }
}

/// Turns scores into weights relative to the new maximum; returns the factor for what was summed before.
#[inline(always)]
fn soften<S: Isa>(s: S, query: &mut Query<'_>, weights: &mut [Lanes], tokens: Range<usize>) -> f32 {
    hide(weights, &tokens, f32::NEG_INFINITY);
    let mut highest = s.splat(query.max);
    for lanes in weights.iter() {
        highest = s.max(s.load(lanes), highest);
    }
    let max = highest_lane(s, highest);
    let correction = first_lane(s, exp(s, s.splat(query.max - max)));
    for lanes in weights.iter_mut() {
        s.store(exp(s, s.sub(s.load(lanes), s.splat(max))), lanes);
    }
    hide(weights, &tokens, 0.0);
    let mut total = s.splat(0.0);
    for lanes in weights.iter() {
        total = s.add(total, s.load(lanes));
    }
    query.sum = query.sum * correction + sum(s, total);
    query.max = max;
    correction
}

/// Overwrites what lies outside of `tokens`, whose pages may hold anything.
#[inline(always)]
fn hide(weights: &mut [Lanes], tokens: &Range<usize>, value: f32) {
    let weights = weights.as_flattened_mut();
    weights[..tokens.start].fill(value);
    weights[tokens.end..].fill(value);
}

#[inline(always)]
fn highest_lane<S: Isa>(s: S, value: S::F) -> f32 {
    let mut lanes = [0.0; LANES];
    s.store(value, &mut lanes);
    lanes.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
}

#[inline(always)]
fn first_lane<S: Isa>(s: S, value: S::F) -> f32 {
    let mut lanes = [0.0; LANES];
    s.store(value, &mut lanes);
    lanes[0]
}

/// Adds weighted values to `W` groups of dimensions, token by token.
#[inline(always)]
fn weigh<S: Isa, const Q: usize, const W: usize>(
    s: S,
    values: &[Lanes],
    dim_groups: usize,
    group: usize,
    weights: [&[f32]; Q],
    corrections: [f32; Q],
    queries: &mut [&mut Query<'_>; Q],
) {
    let count = weights[0].len();
    let weights: [&[f32]; Q] = weights.map(|w| &w[..count]);
    // Loops, not closures: an instruction in a closure may be left as a call.
    let mut sums = [[s.splat(0.0); W]; Q];
    for ((sums, query), correction) in sums.iter_mut().zip(queries.iter()).zip(corrections) {
        for (sum, lanes) in sums.iter_mut().zip(&query.weighted[group..]) {
            *sum = s.mul(s.load(lanes), s.splat(correction));
        }
    }
    for (t, values) in values.chunks_exact(dim_groups).take(count).enumerate() {
        let values: [S::F; W] = std::array::from_fn(|w| s.load(&values[group + w]));
        for q in 0..Q {
            let weight = s.splat(weights[q][t]);
            for w in 0..W {
                sums[q][w] = s.fma(values[w], weight, sums[q][w]);
            }
        }
    }
    for (query, sums) in queries.iter_mut().zip(sums) {
        for (lanes, sum) in query.weighted[group..].iter_mut().zip(sums) {
            s.store(sum, lanes);
        }
    }
}

#[inline(always)]
fn finish<S: Isa>(s: S, query: &Query<'_>, out: &mut [f32]) {
    let total = s.splat(query.sum);
    for (lanes, out) in query.weighted.iter().zip(out.chunks_mut(LANES)) {
        let mut values = [0.0; LANES];
        s.store(s.div(s.load(lanes), total), &mut values);
        out.copy_from_slice(&values[..out.len()]);
    }
}
