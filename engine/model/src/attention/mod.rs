//! Attention of a few queries over paged f16 keys and values.
//!
//! Each query takes the pages of its range in order of position with a running softmax; a page's border
//! and a query's arithmetic depend on positions alone, so neither chunks nor neighbours change a bit.
//! A page is read in one of two ways, which give the same bits: see [`page`].

// Several arrays are walked in step.
#![allow(clippy::needless_range_loop)]

mod page;
mod queries;

use crate::simd::{Isa, Kernel, LANES, Lanes, exp, sum};
use crate::step::Pages;

use page::{AsStored, PageView, Stored, Widened};
pub(crate) use queries::Queries;
use queries::{Query, TokenRange};

/// Computes `out`, `[row][head][dim]`.
pub(crate) struct Attend<'a> {
    pub(crate) of: Queries<'a>,
    pub(crate) out: &'a mut [f32],
}

impl Kernel for Attend<'_> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let mut widened = Widened::default();
        let out_stride = self.of.heads * self.of.geometry.head_dim;
        let Self { out, of } = self;
        let mut first = 0;
        let mut sequences = of.rows.chunk_by(|a, b| a.sequence == b.sequence).peekable();
        while let Some(rows) = sequences.next() {
            let mut queries = of.queries(first, rows);
            // Whoever computes this kv head goes on with the next sequence, then with the next head.
            let after = match sequences.peek() {
                Some(next) => of.first_page(of.kv_head, next),
                None => of.first_page(of.kv_head + 1, of.rows),
            };
            attend(s, &of, &of.pages[rows[0].sequence], after, &mut queries, &mut widened);
            let out = out[first * out_stride..].chunks_mut(of.geometry.head_dim);
            for (query, out) in queries.iter().zip(out) {
                finish(s, query, out);
            }
            first += rows.len();
        }
    }
}

/// Queries computed side by side; they see the same tokens of a page.
const TOGETHER: usize = 4;
/// With more queries than this, widening a page once pays.
const FEW: usize = 2 * TOGETHER;

#[inline(always)]
fn attend<S: Isa>(
    s: S,
    task: &Queries<'_>,
    pages: &Pages,
    after: Stored<'_>,
    queries: &mut [Query],
    widened: &mut Widened,
) {
    let page_tokens = task.geometry.page_tokens;
    let begin = queries.iter().map(|q| q.visible.start).min().unwrap_or(0);
    let end = queries.iter().map(|q| q.visible.end).max().unwrap_or(0);
    let page_end = end.div_ceil(page_tokens);
    for index in begin / page_tokens..page_end {
        let page = task.page(task.kv_head, pages, index);
        let first = index * page_tokens;
        if queries.len() <= FEW {
            let next = if index + 1 < page_end { task.page(task.kv_head, pages, index + 1) } else { after };
            add_page(s, AsStored { page, next }, first..first + page_tokens, queries);
        } else {
            widened.fill(s, page, page_tokens.min(end - first));
            add_page(s, &*widened, first..first + page_tokens, queries);
        }
    }
}

/// Adds the page of `positions` to every query that sees some of it.
#[inline(always)]
fn add_page<S: Isa, V: PageView>(s: S, page: V, positions: TokenRange, queries: &mut [Query]) {
    let seen = |q: &Query| {
        let inside = |position: usize| position.clamp(positions.start, positions.end) - positions.start;
        inside(q.visible.start)..inside(q.visible.end)
    };
    for same in queries.chunk_by_mut(|a, b| a.visible == b.visible || seen(a) == seen(b)) {
        let tokens = seen(&same[0]);
        if tokens.is_empty() {
            continue;
        }
        for together in same.chunks_mut(TOGETHER) {
            match together {
                [a, b, c, d] => add_tokens(s, page, tokens.clone(), [a, b, c, d]),
                [a, b, c] => add_tokens(s, page, tokens.clone(), [a, b, c]),
                [a, b] => add_tokens(s, page, tokens.clone(), [a, b]),
                [a] => add_tokens(s, page, tokens.clone(), [a]),
                _ => {}
            }
        }
    }
}

/// Adds the visible tokens of a page to `Q` queries that see the same of them.
#[inline(always)]
fn add_tokens<S: Isa, V: PageView, const Q: usize>(
    s: S,
    page: V,
    tokens: TokenRange,
    mut queries: [&mut Query; Q],
) {
    let used = tokens.end.div_ceil(LANES);
    let mut weights: [_; Q] = std::array::from_fn(|q| std::mem::take(&mut queries[q].weights));
    for weights in &mut weights {
        weights.resize(used, [0.0; LANES]);
    }
    page.scores(s, std::array::from_fn(|q| &queries[q].values[..]), &mut weights);
    let mut corrections = [0.0; Q];
    for q in 0..Q {
        corrections[q] = soften(s, queries[q], &mut weights[q], &tokens);
    }
    let by_token: [&[f32]; Q] = std::array::from_fn(|q| &weights[q].as_flattened()[tokens.clone()]);
    let groups = queries[0].weighted.len();
    let mut group = 0;
    while group + 4 <= groups {
        weigh::<S, V, Q, 4>(s, page, group, tokens.start, by_token, corrections, &mut queries);
        group += 4;
    }
    while group < groups {
        weigh::<S, V, Q, 1>(s, page, group, tokens.start, by_token, corrections, &mut queries);
        group += 1;
    }
    for (query, weights) in queries.into_iter().zip(weights) {
        query.weights = weights;
    }
}

/// Turns scores into weights relative to the new maximum; returns the factor for what was summed before.
#[inline(always)]
fn soften<S: Isa>(s: S, query: &mut Query, weights: &mut [Lanes], tokens: &TokenRange) -> f32 {
    hide(weights, tokens, f32::NEG_INFINITY);
    let mut highest = s.splat(query.max);
    for lanes in weights.iter() {
        highest = s.max(s.load(lanes), highest);
    }
    let max = highest_lane(s, highest);
    let correction = first_lane(s, exp(s, s.splat(query.max - max)));
    for lanes in weights.iter_mut() {
        s.store(exp(s, s.sub(s.load(lanes), s.splat(max))), lanes);
    }
    hide(weights, tokens, 0.0);
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
fn hide(weights: &mut [Lanes], tokens: &TokenRange, value: f32) {
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

/// Adds weighted values of the tokens from `first` to `W` groups of dimensions, token by token.
#[inline(always)]
fn weigh<S: Isa, V: PageView, const Q: usize, const W: usize>(
    s: S,
    page: V,
    group: usize,
    first: usize,
    weights: [&[f32]; Q],
    corrections: [f32; Q],
    queries: &mut [&mut Query; Q],
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
    for t in 0..count {
        let values: [S::F; W] = page.values(s, first + t, group);
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
fn finish<S: Isa>(s: S, query: &Query, out: &mut [f32]) {
    let total = s.splat(query.sum);
    for (lanes, out) in query.weighted.iter().zip(out.chunks_mut(LANES)) {
        let mut values = [0.0; LANES];
        s.store(s.div(s.load(lanes), total), &mut values);
        out.copy_from_slice(&values[..out.len()]);
    }
}
