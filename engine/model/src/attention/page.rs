//! Keys and values of one page, for one kv head and layer.
//!
//! A score is summed in one order, however the page is read: lane `j` takes the dimensions `j`, `16 + j`, …
//! one after the other, then the lanes are added in the tree of [`crate::simd::sum`]. A few queries take the
//! keys as they are stored, lanes being dimensions; for many, a page is widened to f32 once with its keys
//! transposed, lanes being tokens, so that no lanes need to be added.

// Several arrays are walked in step.
#![allow(clippy::needless_range_loop)]

use crate::KvGeometry;
use crate::simd::{Isa, LANES, Lanes};

/// One way to read a page.
pub(super) trait PageView: Copy {
    /// Dot products of `Q` queries with the first tokens, sixteen for each of `out`'s lanes.
    fn scores<S: Isa, const Q: usize>(self, s: S, queries: [&[Lanes]; Q], out: &mut [Vec<Lanes>; Q]);
    /// `W` groups of dimensions, from `group`, of a token's values.
    fn values<S: Isa, const W: usize>(self, s: S, token: usize, group: usize) -> [S::F; W];
}

/// Keys or values as a page holds them: `[token][dim]`, f16. The default one has no tokens.
#[derive(Clone, Copy, Default)]
pub(super) struct Run<'a> {
    bytes: &'a [u8],
    token_bytes: usize,
}

impl<'a> Run<'a> {
    pub(super) fn new(geometry: &KvGeometry, bytes: &'a [u8]) -> Self {
        Self { bytes, token_bytes: geometry.head_dim * geometry.dtype.bytes() }
    }

    /// Tokens for which there is room.
    fn tokens(self) -> usize {
        self.bytes.len() / self.token_bytes
    }

    fn groups(self) -> usize {
        (self.token_bytes / 2).div_ceil(LANES)
    }

    /// One token; nothing beyond the page.
    #[inline(always)]
    fn token(self, token: usize) -> &'a [u8] {
        let first = token * self.token_bytes;
        self.bytes.get(first..first + self.token_bytes).unwrap_or_default()
    }
}

/// Sixteen f16 values of a token; those beyond it are zero.
#[inline(always)]
fn widen<S: Isa>(s: S, token: &[u8], group: usize) -> S::F {
    let bytes = token.get(2 * LANES * group..).unwrap_or_default();
    if let Some(whole) = bytes.first_chunk::<{ 2 * LANES }>() {
        return s.widen_f16(&std::array::from_fn(|i| u16::from_le_bytes([whole[2 * i], whole[2 * i + 1]])));
    }
    s.widen_f16(&std::array::from_fn(|i| {
        bytes.get(2 * i..2 * i + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
    }))
}

/// Keys and values of a page as they are stored.
#[derive(Clone, Copy, Default)]
pub(super) struct Stored<'a> {
    pub(super) keys: Run<'a>,
    pub(super) values: Run<'a>,
}

/// Lanes are dimensions.
#[derive(Clone, Copy)]
pub(super) struct AsStored<'a> {
    pub(super) page: Stored<'a>,
    /// What will be read after it, fetched token by token meanwhile: all at once would keep the processor
    /// waiting for memory instead of computing.
    pub(super) next: Stored<'a>,
}

impl AsStored<'_> {
    /// Partial dot products of one token, not yet added over the lanes.
    #[inline(always)]
    fn products<S: Isa, const Q: usize>(self, s: S, token: usize, queries: [&[Lanes]; Q]) -> [S::F; Q] {
        s.prefetch(self.next.keys.token(token));
        let token = self.page.keys.token(token);
        let mut products = [s.splat(0.0); Q];
        for group in 0..queries[0].len() {
            let key = widen(s, token, group);
            for q in 0..Q {
                products[q] = s.fma(key, s.load(&queries[q][group]), products[q]);
            }
        }
        products
    }

    /// Tokens `first`, `first + 4`, `+ 8` and `+ 12`: four lanes of each, for every query.
    #[inline(always)]
    fn four<S: Isa, const Q: usize>(self, s: S, first: usize, queries: [&[Lanes]; Q]) -> [S::F; Q] {
        let a = self.products(s, first, queries);
        let b = self.products(s, first + 4, queries);
        let mut ab = a;
        for q in 0..Q {
            ab[q] = s.fold_halves(a[q], b[q]);
        }
        let c = self.products(s, first + 8, queries);
        let d = self.products(s, first + 12, queries);
        let mut four = a;
        for q in 0..Q {
            four[q] = s.fold_quarters(ab[q], s.fold_halves(c[q], d[q]));
        }
        four
    }
}

impl PageView for AsStored<'_> {
    #[inline(always)]
    fn scores<S: Isa, const Q: usize>(self, s: S, queries: [&[Lanes]; Q], out: &mut [Vec<Lanes>; Q]) {
        let groups = self.page.keys.groups();
        let queries: [&[Lanes]; Q] = queries.map(|query| &query[..groups]);
        for group in 0..out[0].len() {
            let first = group * LANES;
            let (a, b) = (self.four(s, first, queries), self.four(s, first + 1, queries));
            let mut ab = a;
            for q in 0..Q {
                ab[q] = s.fold_pairs(a[q], b[q]);
            }
            let (c, d) = (self.four(s, first + 2, queries), self.four(s, first + 3, queries));
            for q in 0..Q {
                let sixteen = s.fold_last(ab[q], s.fold_pairs(c[q], d[q]));
                s.store(sixteen, &mut out[q][group]);
            }
        }
    }

    #[inline(always)]
    fn values<S: Isa, const W: usize>(self, s: S, token: usize, group: usize) -> [S::F; W] {
        if group == 0 {
            s.prefetch(self.next.values.token(token));
        }
        let token = self.page.values.token(token);
        let mut values = [s.splat(0.0); W];
        for (w, value) in values.iter_mut().enumerate() {
            *value = widen(s, token, group + w);
        }
        values
    }
}

/// A page in f32, its keys transposed: lanes are tokens.
#[derive(Default)]
pub(super) struct Widened {
    token_groups: usize,
    dim_groups: usize,
    /// `[dim][group of tokens]`
    keys: Vec<Lanes>,
    /// `[token][group of dims]`
    values: Vec<Lanes>,
}

impl Widened {
    /// Takes the first `filled` tokens.
    #[inline(always)]
    pub(super) fn fill<S: Isa>(&mut self, s: S, page: Stored<'_>, filled: usize) {
        let Stored { keys, values } = page;
        (self.token_groups, self.dim_groups) = (keys.tokens().div_ceil(LANES), keys.groups());
        self.keys.resize(self.dim_groups * LANES * self.token_groups, [0.0; LANES]);
        self.values.resize(keys.tokens() * self.dim_groups, [0.0; LANES]);
        for group in 0..filled.div_ceil(LANES) {
            for dims in 0..self.dim_groups {
                let mut tile = [s.splat(0.0); LANES];
                for (i, row) in tile.iter_mut().enumerate() {
                    *row = widen(s, keys.token(group * LANES + i), dims);
                }
                s.transpose(&mut tile);
                for (i, row) in tile.into_iter().enumerate() {
                    s.store(row, &mut self.keys[(dims * LANES + i) * self.token_groups + group]);
                }
            }
        }
        for (token, lanes) in self.values.chunks_exact_mut(self.dim_groups).take(filled).enumerate() {
            for (group, lanes) in lanes.iter_mut().enumerate() {
                s.store(widen(s, values.token(token), group), lanes);
            }
        }
    }

    /// Dot products with the tokens of `W` groups, from `group`.
    #[inline(always)]
    fn products<S: Isa, const Q: usize, const W: usize>(
        &self,
        s: S,
        group: usize,
        queries: [&[Lanes]; Q],
        out: &mut [Vec<Lanes>; Q],
    ) {
        let mut partial = [[[s.splat(0.0); W]; Q]; LANES];
        for (j, partial) in partial.iter_mut().enumerate() {
            let mut sums = [[s.splat(0.0); W]; Q];
            for dims in 0..queries[0].len() {
                let keys = &self.keys[(dims * LANES + j) * self.token_groups + group..];
                for w in 0..W {
                    let key = s.load(&keys[w]);
                    for q in 0..Q {
                        sums[q][w] = s.fma(key, s.splat(queries[q][dims][j]), sums[q][w]);
                    }
                }
            }
            *partial = sums;
        }
        for half in [8, 4, 2, 1] {
            for j in 0..half {
                for q in 0..Q {
                    for w in 0..W {
                        partial[j][q][w] = s.add(partial[j][q][w], partial[j + half][q][w]);
                    }
                }
            }
        }
        for q in 0..Q {
            for w in 0..W {
                s.store(partial[0][q][w], &mut out[q][group + w]);
            }
        }
    }
}

impl PageView for &Widened {
    #[inline(always)]
    fn scores<S: Isa, const Q: usize>(self, s: S, queries: [&[Lanes]; Q], out: &mut [Vec<Lanes>; Q]) {
        let queries: [&[Lanes]; Q] = queries.map(|query| &query[..self.dim_groups]);
        let used = out[0].len();
        let mut group = 0;
        while group + 2 <= used {
            self.products::<S, Q, 2>(s, group, queries, out);
            group += 2;
        }
        if group < used {
            self.products::<S, Q, 1>(s, group, queries, out);
        }
    }

    #[inline(always)]
    fn values<S: Isa, const W: usize>(self, s: S, token: usize, group: usize) -> [S::F; W] {
        let lanes = &self.values[token * self.dim_groups + group..];
        let mut values = [s.splat(0.0); W];
        for (w, value) in values.iter_mut().enumerate() {
            *value = s.load(&lanes[w]);
        }
        values
    }
}
