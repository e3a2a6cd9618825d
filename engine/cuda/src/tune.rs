//! The fastest way of each product, found by trying them on the model's own weights.

use half::bf16;
use shoal_kernels::{Gemm, LaunchError, Product, Queue, Rows, SkinnyOut, probe, silu_mul, skinny};

use crate::choice::{Choices, Ways};
use crate::profile::Part;
use crate::runner::Runner;
use crate::scratch::Scratch;
use crate::weights::{Layer, Matrix};
use crate::{CudaModel, StepError, buckets};

/// Turns through the weights that are timed, after one to warm up; the best counts.
const TURNS: usize = 3;

impl CudaModel {
    /// Chooses the fastest way of every product for steps of these many rows, and for decode batches
    /// captures their graphs. Without it the first step of a size takes the library's first choice, or the
    /// kernel for few tokens.
    pub fn prepare(&mut self, decode: &[usize], tokens: &[usize]) -> Result<(), StepError> {
        let Scratch { residual, normed, attended, activation, .. } = &mut self.runner.scratch;
        for (seed, buffer) in [residual, normed, attended, activation].into_iter().enumerate() {
            // Products of whatever the memory held, zeros among it, would take another time.
            probe::fill_random(&self.queue, buffer, seed as u32 + 1, 1.0)?;
        }
        let most = buckets::rows(self.limits.tokens);
        for rows in decode.iter().chain(tokens) {
            self.runner.tune(&self.queue, buckets::rows(*rows).min(most))?;
        }
        // Only the last rows of long steps meet the head, of decode batches all.
        for rows in decode {
            self.runner.tune_head(&self.queue, buckets::rows(*rows))?;
        }
        self.greedy = None;
        self.graphs.clear();
        for batch in decode {
            self.slate.fill(&self.queue, &[])?;
            self.prepare_decode(buckets::decode(*batch))?;
        }
        self.synchronize()
    }

    /// What [`Self::prepare`] measured, by part and rows.
    pub fn measured_products(&self) -> Vec<(Part, usize, Ways)> {
        self.runner.choices.measured()
    }
}

impl Runner {
    fn tune(&mut self, queue: &Queue, rows: usize) -> Result<(), LaunchError> {
        let Self { weights, gemm, choices, scratch, .. } = self;
        let Scratch { widths, residual, normed, qkv, attended, gate_up, activation, .. } = scratch;
        let each = |of: fn(&Layer) -> &Matrix| -> Result<Vec<Rows<'_, bf16>>, LaunchError> {
            weights.layers.iter().map(|layer| of(layer).rows()).collect()
        };
        let (hidden, ffn) = (widths.hidden, widths.ffn);
        let mut ways = Trial { queue, gemm, choices, rows };

        let all = each(|layer| &layer.qkv)?;
        let bias = weights.layers[0].qkv_bias.as_ref();
        let bias = bias.map(|bias| bias.buffer.rows(1, widths.qkv)).transpose()?;
        let first = Product { x: normed.rows(rows, hidden)?, weight: all[0], bias, add: false };
        let mut out = qkv.rows_mut(rows, widths.qkv)?;
        ways.gemm.tune(queue, first, &all, &mut out)?;
        if bias.is_none() {
            let library = ways
                .time(&all, |ways, weight| ways.gemm.product(queue, Product { weight, ..first }, &mut out))?;
            ways.compare(Part::Qkv, &all, library, |weight| {
                skinny(queue, first.x, weight, SkinnyOut::Store(&mut out))
            })?;
        }

        let mut out = residual.rows_mut(rows, hidden)?;
        let sums = [
            (Part::Output, each(|layer| &layer.attention_output)?, attended.rows(rows, widths.query)?),
            (Part::Down, each(|layer| &layer.down)?, activation.rows(rows, ffn)?),
        ];
        for (part, all, x) in sums {
            let first = Product { x, weight: all[0], bias: None, add: true };
            ways.gemm.tune(queue, first, &all, &mut out)?;
            let library = ways
                .time(&all, |ways, weight| ways.gemm.product(queue, Product { weight, ..first }, &mut out))?;
            ways.compare(part, &all, library, |weight| skinny(queue, x, weight, SkinnyOut::Add(&mut out)))?;
        }

        let all = each(|layer| &layer.gate_up)?;
        let first = Product { x: normed.rows(rows, hidden)?, weight: all[0], bias: None, add: false };
        ways.gemm.tune(queue, first, &all, &mut gate_up.rows_mut(rows, 2 * ffn)?)?;
        let mut out = activation.rows_mut(rows, ffn)?;
        let library = ways.time(&all, |ways, weight| {
            let product = Product { weight, ..first };
            ways.gemm.product(queue, product, &mut gate_up.rows_mut(rows, 2 * ffn)?)?;
            silu_mul(queue, gate_up.rows(rows, 2 * ffn)?, &mut out)
        })?;
        ways.compare(Part::GateUp, &all, library, |weight| {
            skinny(queue, first.x, weight, SkinnyOut::Silu(&mut out))
        })
    }

    fn tune_head(&mut self, queue: &Queue, rows: usize) -> Result<(), LaunchError> {
        let Self { config, weights, gemm, choices, scratch, .. } = self;
        let Scratch { widths, normed, logits, .. } = scratch;
        let weight = weights.head().rows()?;
        let first = Product { x: normed.rows(rows, widths.hidden)?, weight, bias: None, add: false };
        let mut out = logits.rows_mut(rows, config.vocabulary)?;
        let mut ways = Trial { queue, gemm, choices, rows };
        ways.gemm.tune(queue, first, &[weight; 2], &mut out)?;
        let library = ways.time(&[weight; 2], |ways, _| ways.gemm.product(queue, first, &mut out))?;
        ways.compare(Part::Head, &[weight; 2], library, |weight| {
            skinny(queue, first.x, weight, SkinnyOut::Wide(&mut out))
        })
    }
}

struct Trial<'a> {
    queue: &'a Queue,
    gemm: &'a mut Gemm,
    choices: &'a mut Choices,
    rows: usize,
}

impl Trial<'_> {
    /// Keeps the library for a part where it takes less than the kernel.
    fn compare(
        &mut self,
        part: Part,
        weights: &[Rows<'_, bf16>],
        library: f64,
        mut run: impl FnMut(Rows<'_, bf16>) -> Result<(), LaunchError>,
    ) -> Result<(), LaunchError> {
        let (outputs, inputs) = (weights[0].count(), weights[0].columns());
        if !self.choices.possible(self.rows, outputs, inputs) {
            return Ok(());
        }
        let kernel = self.time(weights, |_, weight| run(weight))?;
        let us = |ms: f64| ms * 1e3 / weights.len() as f64;
        let ways = Ways { library_us: us(library), kernel_us: us(kernel) };
        self.choices.record(part, self.rows, ways);
        Ok(())
    }

    /// Milliseconds of one turn through the weights.
    fn time(
        &mut self,
        weights: &[Rows<'_, bf16>],
        mut run: impl FnMut(&mut Self, Rows<'_, bf16>) -> Result<(), LaunchError>,
    ) -> Result<f64, LaunchError> {
        let mut best = f64::INFINITY;
        for turn in 0..=TURNS {
            let begin = self.queue.mark()?;
            for weight in weights {
                run(self, *weight)?;
            }
            let time = self.queue.mark()?.since(&begin)?;
            best = if turn == 0 { best } else { best.min(time) };
        }
        Ok(best)
    }
}
