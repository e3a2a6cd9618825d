//! Sequences whose keys and values lie in shuffled pages of a poisoned arena.

use half::bf16;
use shoal_kernels::{Buffer, KvElement, KvPages, PAGE_TOKENS, PageTable, Queue, reference};

use crate::device::{Number, POISON, Random, wide};

pub(crate) const LAYERS: usize = 2;
pub(crate) const LAYER: usize = 1;

pub(crate) struct Cache<T> {
    pub(crate) pages: KvPages<T>,
    table: Buffer<u32>,
    lengths: Buffer<u32>,
    columns: usize,
    /// By sequence, then kv head: keys and values of all tokens.
    content: Vec<Vec<[Vec<f64>; 2]>>,
    dim: usize,
}

impl<T: KvElement + Number> Cache<T> {
    pub(crate) fn new(queue: &Queue, lengths: &[usize], kv_heads: usize, dim: usize) -> Self {
        let mut random = Random::new(lengths.iter().sum::<usize>() as u64 + dim as u64);
        let columns = lengths.iter().map(|tokens| tokens.div_ceil(PAGE_TOKENS)).max().unwrap().max(1);
        let used: usize = lengths.iter().map(|tokens| tokens.div_ceil(PAGE_TOKENS)).sum();
        let mut free: Vec<u32> = (0..used as u32 + 3).collect();
        let page = KvPages::<T>::page_elements(LAYERS, kv_heads, dim);
        let poison = poison::<T>();
        let mut host = vec![poison; free.len() * page];
        // Rows of the table past a sequence's pages hold a page that does not exist.
        let mut table = vec![u32::MAX; lengths.len() * columns];
        let mut content = Vec::new();
        for (sequence, tokens) in lengths.iter().enumerate() {
            let ids: Vec<u32> = (0..tokens.div_ceil(PAGE_TOKENS))
                .map(|_| free.swap_remove(random.below(free.len())))
                .collect();
            table[sequence * columns..][..ids.len()].copy_from_slice(&ids);
            let heads = 0..kv_heads;
            content.push(
                heads
                    .map(|head| fill(&mut host, &mut random, &ids, [head, kv_heads, *tokens, dim]))
                    .collect(),
            );
        }
        let buffer = Buffer::from_host(queue, &host).unwrap();
        let counts: Vec<u32> = lengths.iter().map(|tokens| *tokens as u32).collect();
        Self {
            pages: KvPages::new(buffer, [LAYERS, kv_heads, dim]).unwrap(),
            table: Buffer::from_host(queue, &table).unwrap(),
            lengths: Buffer::from_host(queue, &counts).unwrap(),
            columns,
            content,
            dim,
        }
    }

    pub(crate) fn table(&self) -> PageTable<'_> {
        let batch = self.content.len();
        PageTable {
            pages: self.table.rows(batch, self.columns).unwrap(),
            lengths: self.lengths.rows(1, batch).unwrap(),
        }
    }

    /// Attention of one query head over tokens `first..end` of a sequence.
    pub(crate) fn attend(
        &self,
        sequence: usize,
        kv_head: usize,
        q: &[bf16],
        tokens: std::ops::Range<usize>,
        scale: f64,
    ) -> Vec<f64> {
        let [keys, values] = &self.content[sequence][kv_head];
        let range = tokens.start * self.dim..tokens.end * self.dim;
        reference::attention(&wide(q), &keys[range.clone()], &values[range], scale)
    }
}

fn poison<T: Number>() -> T {
    assert_eq!(POISON, 0xff);
    T::narrow(f32::NAN)
}

/// Writes one head's random keys and values of a sequence into its pages, and returns them.
fn fill<T: Number>(host: &mut [T], random: &mut Random, ids: &[u32], shape: [usize; 4]) -> [Vec<f64>; 2] {
    let [head, kv_heads, tokens, dim] = shape;
    [0, 1].map(|part| {
        let data: Vec<T> = random.numbers(tokens * dim, 2.0);
        for (token, row) in data.chunks(dim).enumerate() {
            let page = ids[token / PAGE_TOKENS] as usize;
            let run = (((page * kv_heads + head) * LAYERS + LAYER) * 2 + part) * PAGE_TOKENS;
            host[(run + token % PAGE_TOKENS) * dim..][..dim].copy_from_slice(row);
        }
        wide(&data)
    })
}
