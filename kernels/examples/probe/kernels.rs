//! What each kernel reaches on Llama-8B's shapes: time, and bytes or operations over time.

use half::bf16;
use serde_json::{Value, json};
use shoal_kernels::{
    ArgmaxScratch, Buffer, Chain, Decode, KvPages, PAGE_TOKENS, PageTable, Pairing, Prefill, QkRope, Queue,
    RopeTables, add_rmsnorm, argmax, decode_attention, prefill_attention, probe, qk_rope_write, silu_mul,
};

use crate::{Outcome, timing};

const HIDDEN: usize = 4096;
const Q_HEADS: usize = 32;
const KV_HEADS: usize = 8;
const DIM: usize = 128;
const WIDTH: usize = 14336;
const VOCAB: usize = 128_256;
/// Launches per timed graph, so that one launch's gap counts as it does in a step.
const BURST: usize = 20;

pub(crate) fn measure(queue: &Queue) -> Outcome<Value> {
    let queue = &queue.chained(Chain::Programmatic);
    let mut rows = Vec::new();
    for tokens in [1, 64, 256, 4096] {
        rows.extend(elementwise(queue, tokens)?);
    }
    for (batch, context) in [(1, 1024), (8, 1024), (64, 1024), (256, 1024), (64, 4096), (1, 16384)] {
        rows.push(decode(queue, batch, context)?);
    }
    for tokens in [1024, 4096, 16384] {
        rows.push(prefill(queue, tokens)?);
    }
    Ok(Value::Array(rows))
}

fn random(queue: &Queue, len: usize, scale: f32) -> Outcome<Buffer<bf16>> {
    let mut buffer = Buffer::new(queue.gpu(), len)?;
    probe::fill_random(queue, &mut buffer, len as u32, scale)?;
    Ok(buffer)
}

/// Times one launch as a share of a replayed burst.
fn burst(queue: &Queue, run: impl Fn(&Queue) -> Result<(), shoal_kernels::LaunchError>) -> Outcome<f64> {
    let graph = queue.capture(|queue| (0..BURST).try_for_each(|_| run(queue)))?;
    Ok(timing::repeat(queue, 15, || Ok(graph.replay()?))?.median_ms * 1e3 / BURST as f64)
}

fn moved(kernel: &str, tokens: usize, us: f64, bytes: usize) -> Value {
    json!({ "kernel": kernel, "tokens": tokens, "us": us, "bytes": bytes, "gb_per_s": bytes as f64 / us / 1e3 })
}

fn elementwise(queue: &Queue, tokens: usize) -> Outcome<Vec<Value>> {
    let mut rows = Vec::new();
    let x = random(queue, tokens * HIDDEN, 1.0)?;
    let (mut residual, mut out) =
        (random(queue, tokens * HIDDEN, 1.0)?, random(queue, tokens * HIDDEN, 1.0)?);
    let weight = random(queue, HIDDEN, 1.0)?;
    let cell = std::cell::RefCell::new((&mut residual, &mut out));
    let us = burst(queue, |queue| {
        let (residual, out) = &mut *cell.borrow_mut();
        let mut sum = residual.rows_mut(tokens, HIDDEN)?;
        let mut target = out.rows_mut(tokens, HIDDEN)?;
        add_rmsnorm(queue, x.rows(tokens, HIDDEN)?, &mut sum, weight.rows(1, HIDDEN)?, 1e-5, &mut target)
    })?;
    rows.push(moved("add_rmsnorm", tokens, us, tokens * HIDDEN * 8));

    let gate_up = random(queue, tokens * 2 * WIDTH, 2.0)?;
    let out = std::cell::RefCell::new(random(queue, tokens * WIDTH, 1.0)?);
    let us = burst(queue, |queue| {
        silu_mul(queue, gate_up.rows(tokens, 2 * WIDTH)?, &mut out.borrow_mut().rows_mut(tokens, WIDTH)?)
    })?;
    rows.push(moved("silu_mul", tokens, us, tokens * WIDTH * 6));
    rows.push(rope(queue, tokens)?);
    if tokens <= 256 {
        let logits = random(queue, tokens * VOCAB, 10.0)?;
        let ids = Buffer::<u32>::new(queue.gpu(), tokens)?;
        let cell = std::cell::RefCell::new((ids, ArgmaxScratch::new(queue.gpu(), tokens)?));
        let us = burst(queue, |queue| {
            let (ids, scratch) = &mut *cell.borrow_mut();
            argmax(queue, logits.rows(tokens, VOCAB)?, scratch, &mut ids.rows_mut(1, tokens)?)
        })?;
        rows.push(moved("argmax_bf16", tokens, us, tokens * VOCAB * 2));
    }
    Ok(rows)
}

fn rope(queue: &Queue, tokens: usize) -> Outcome<Value> {
    let width = (Q_HEADS + 2 * KV_HEADS) * DIM;
    let qkv = random(queue, tokens * width, 1.0)?;
    let count = tokens.div_ceil(PAGE_TOKENS);
    let pages = KvPages::new(
        random(queue, count * KvPages::<bf16>::page_elements(1, KV_HEADS, DIM), 1.0)?,
        [1, KV_HEADS, DIM],
    )?;
    let angles = vec![0.7_f32; tokens * DIM / 2];
    let tables = Buffer::from_host(queue, &angles)?;
    let order: Vec<u32> = (0..tokens as u32).collect();
    let order = Buffer::from_host(queue, &order)?;
    let out = std::cell::RefCell::new((pages, random(queue, tokens * Q_HEADS * DIM, 1.0)?));
    let us = burst(queue, |queue| {
        let (pages, q) = &mut *out.borrow_mut();
        let table = tables.rows(tokens, DIM / 2)?;
        let order = order.rows(1, tokens)?;
        let step = QkRope {
            qkv: qkv.rows(tokens, width)?,
            norm: None,
            tables: RopeTables { cos: table, sin: table },
            pairing: Pairing::Half,
            positions: order,
            slots: order,
        };
        qk_rope_write(queue, &step, pages, 0, &mut q.rows_mut(tokens, Q_HEADS * DIM)?)
    })?;
    Ok(moved("qk_rope_write", tokens, us, tokens * width * 4))
}

/// Pages of `batch` sequences of `context` tokens, one layer, in order.
struct Cache {
    pages: KvPages<bf16>,
    table: Buffer<u32>,
    lengths: Buffer<u32>,
    batch: usize,
    columns: usize,
}

impl Cache {
    fn new(queue: &Queue, batch: usize, context: usize) -> Outcome<Self> {
        let columns = context.div_ceil(PAGE_TOKENS);
        let elements = batch * columns * KvPages::<bf16>::page_elements(1, KV_HEADS, DIM);
        let ids: Vec<u32> = (0..(batch * columns) as u32).collect();
        Ok(Self {
            pages: KvPages::new(random(queue, elements, 1.0)?, [1, KV_HEADS, DIM])?,
            table: Buffer::from_host(queue, &ids)?,
            lengths: Buffer::from_host(queue, &vec![context as u32; batch])?,
            batch,
            columns,
        })
    }

    fn table(&self) -> Result<PageTable<'_>, shoal_kernels::LaunchError> {
        let pages = self.table.rows(self.batch, self.columns)?;
        Ok(PageTable { pages, lengths: self.lengths.rows(1, self.batch)? })
    }
}

fn decode(queue: &Queue, batch: usize, context: usize) -> Outcome<Value> {
    // Several caches, so that a small batch does not read its keys from the second-level cache.
    let bytes = batch * context * KV_HEADS * DIM * 4;
    let caches = (0..(256_usize << 20).div_ceil(bytes).min(BURST)).map(|_| Cache::new(queue, batch, context));
    let caches: Vec<Cache> = caches.collect::<Outcome<_>>()?;
    let q = random(queue, batch * Q_HEADS * DIM, 1.0)?;
    let fits = |splits: &usize| splits * batch * KV_HEADS <= 2 * queue.gpu().multiprocessors();
    let splits = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
    let state = std::cell::RefCell::new((random(queue, batch * Q_HEADS * DIM, 1.0)?, 0_usize));
    let us = burst(queue, |queue| {
        let (out, turn) = &mut *state.borrow_mut();
        *turn += 1;
        let cache = &caches[*turn % caches.len()];
        let step = Decode {
            q: q.rows(batch, Q_HEADS * DIM)?,
            table: cache.table()?,
            layer: 0,
            scale: 0.088,
            window: None,
            splits,
        };
        decode_attention(queue, &step, &cache.pages, &mut out.rows_mut(batch, Q_HEADS * DIM)?)
    })?;
    Ok(json!({
        "kernel": "decode_attention", "batch": batch, "context": context, "splits": splits, "us": us,
        "bytes": bytes, "gb_per_s": bytes as f64 / us / 1e3,
    }))
}

fn prefill(queue: &Queue, tokens: usize) -> Outcome<Value> {
    let cache = Cache::new(queue, 1, tokens)?;
    let q = random(queue, tokens * Q_HEADS * DIM, 1.0)?;
    let start = Buffer::from_host(queue, &[0, tokens as u32])?;
    let mut out = random(queue, tokens * Q_HEADS * DIM, 1.0)?;
    let times = timing::repeat(queue, 9, || {
        let step = Prefill {
            q: q.rows(tokens, Q_HEADS * DIM)?,
            start: start.rows(1, 2)?,
            longest: tokens,
            table: cache.table()?,
            layer: 0,
            scale: 0.088,
            window: None,
        };
        Ok(prefill_attention(queue, &step, &cache.pages, &mut out.rows_mut(tokens, Q_HEADS * DIM)?)?)
    })?;
    // Causal: half of the square.
    let operations = 4.0 * (DIM * Q_HEADS) as f64 * (tokens as f64).powi(2) / 2.0;
    Ok(json!({
        "kernel": "prefill_attention", "tokens": tokens, "us": times.median_ms * 1e3,
        "tflop_per_s": operations / times.median_ms / 1e9,
    }))
}
