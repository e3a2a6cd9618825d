//! What this machine allows: bytes over its measured read rate, operations over its measured product rate.

use std::sync::Arc;

use half::bf16;
use shoal_checkpoint::ModelConfig;
use shoal_cuda::Part;
use shoal_kernels::{Buffer, Chain, Gemm, Gpu, Product, Queue, probe};

use crate::Outcome;

const READ_ELEMENTS: usize = 2 << 30;
const SQUARE: usize = 8192;

pub(crate) struct Floor {
    pub(crate) gb_per_s: f64,
    pub(crate) tflop_per_s: f64,
    config: ModelConfig,
}

pub(crate) fn measure(gpu: &Arc<Gpu>, config: &ModelConfig) -> Outcome<Floor> {
    let queue = Queue::new(gpu, Chain::Serial)?;
    let mut memory = Buffer::<bf16>::new(gpu, READ_ELEMENTS)?;
    probe::fill_random(&queue, &mut memory, 1, 1.0)?;
    let mut sink = Buffer::<u32>::new(gpu, 4)?;
    let read = median(&queue, || Ok(probe::read_all(&queue, &memory, &mut sink, 2)?))?;
    let mut gemm = Gemm::new(gpu)?;
    let mut out = Buffer::<bf16>::new(gpu, SQUARE * SQUARE)?;
    let square = |first: usize| memory.strided(first * SQUARE * SQUARE, SQUARE, SQUARE, SQUARE);
    let product = Product { x: square(0)?, weight: square(1)?, bias: None, add: false };
    gemm.tune(&queue, product, &[square(1)?, square(2)?], &mut out.rows_mut(SQUARE, SQUARE)?)?;
    let multiply =
        median(&queue, || Ok(gemm.product(&queue, product, &mut out.rows_mut(SQUARE, SQUARE)?)?))?;
    Ok(Floor {
        gb_per_s: (READ_ELEMENTS * 2) as f64 / read / 1e6,
        tflop_per_s: 2.0 * (SQUARE as f64).powi(3) / multiply / 1e9,
        config: config.clone(),
    })
}

/// Milliseconds of 15 runs' middle, after three to warm up.
fn median(queue: &Queue, mut run: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let mut times = Vec::new();
    for _ in 0..18 {
        let begin = queue.mark()?;
        run()?;
        times.push(queue.mark()?.since(&begin)?);
    }
    let mut times = times.split_off(3);
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

impl Floor {
    /// Milliseconds of a product: its weights read once, or its operations.
    fn product(&self, rows: usize, parameters: usize) -> f64 {
        let read = parameters as f64 * 2.0 / self.gb_per_s / 1e6;
        read.max(2.0 * rows as f64 * parameters as f64 / self.tflop_per_s / 1e9)
    }

    /// Parameters of all layers' matrices of a part.
    fn parameters(&self, part: Part) -> usize {
        let ModelConfig { hidden, layers, heads, kv_heads, head_dim, ffn, vocabulary, .. } = self.config;
        match part {
            Part::Qkv => layers * hidden * (heads + 2 * kv_heads) * head_dim,
            Part::Output => layers * hidden * heads * head_dim,
            Part::GateUp => layers * hidden * 2 * ffn,
            Part::Down => layers * hidden * ffn,
            Part::Head => hidden * vocabulary,
            Part::Embedding | Part::Norm | Part::Rope | Part::Attention | Part::Activation | Part::Sample => {
                0
            }
        }
    }

    /// Milliseconds of one part of a decode step; 0 for parts whose bytes do not count.
    pub(crate) fn part(&self, part: Part, batch: usize, context: usize) -> f64 {
        if part == Part::Attention {
            let ModelConfig { layers, kv_heads, head_dim, .. } = self.config;
            let bytes = batch * context * layers * kv_heads * head_dim * 4;
            return bytes as f64 / self.gb_per_s / 1e6;
        }
        self.product(batch, self.parameters(part))
    }

    /// Products, attention and head one after the other.
    pub(crate) fn decode(&self, batch: usize, context: usize) -> f64 {
        Part::ALL.iter().map(|part| self.part(*part, batch, context)).sum()
    }

    /// Tokens per second of prompts of `length`; every operation at the products' rate.
    pub(crate) fn prefill(&self, length: usize) -> f64 {
        let ModelConfig { layers, heads, head_dim, .. } = self.config;
        let parameters: usize = [Part::Qkv, Part::Output, Part::GateUp, Part::Down]
            .map(|part| self.parameters(part))
            .iter()
            .sum();
        let operations = 2.0 * parameters as f64 + 2.0 * (layers * heads * head_dim * length) as f64;
        self.tflop_per_s * 1e12 / operations
    }
}
