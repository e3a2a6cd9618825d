//! The launches of one step, in order.

use half::bf16;
use shoal_checkpoint::ModelConfig;
use shoal_kernels::{
    Buffer, Decode, Gemm, KvPages, LaunchError, Prefill, Product, QkRope, Queue, Rows, SkinnyOut,
    decode_attention, gather, prefill_attention, qk_rope_write, rmsnorm, silu_mul, skinny,
};

use crate::buckets;
use crate::choice::Choices;
use crate::inputs::{Runs, Step};
use crate::memory::Widths;
use crate::profile::{Part, Parts};
use crate::rope::Rotations;
use crate::scratch::Scratch;
use crate::weights::{Layer, Weights};

/// What keys and values are stored as.
pub(crate) type Kv = bf16;

/// Everything that a step reads and writes, but its inputs.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) config: ModelConfig,
    pub(crate) weights: Weights,
    pub(crate) rotations: Rotations,
    pub(crate) gemm: Gemm,
    pub(crate) choices: Choices,
    pub(crate) scratch: Scratch,
    pub(crate) pages: KvPages<Kv>,
}

impl Runner {
    /// From token ids to logits in `scratch.logits`. Only `parts` are launched: all of them, unless a
    /// part's time is measured.
    pub(crate) fn enqueue(
        &mut self,
        queue: &Queue,
        step: &Step<'_>,
        parts: Parts,
    ) -> Result<(), LaunchError> {
        let Scratch { residual, widths, .. } = &mut self.scratch;
        if parts.has(Part::Embedding) {
            let table = self.weights.embedding.rows()?;
            gather(queue, table, step.ids, &mut residual.rows_mut(step.rows, widths.hidden)?)?;
        }
        for layer in 0..self.config.layers {
            self.attention(queue, step, layer, parts)?;
            self.feed_forward(queue, step.rows, layer, parts)?;
        }
        self.head(queue, step, parts)
    }

    fn attention(
        &mut self,
        queue: &Queue,
        step: &Step<'_>,
        index: usize,
        parts: Parts,
    ) -> Result<(), LaunchError> {
        let Self { config, weights, rotations, gemm, choices, scratch, pages } = self;
        let (rows, eps) = (step.rows, config.rms_eps);
        let Scratch { widths, residual, normed, qkv, queries, attended, .. } = scratch;
        let layer = &weights.layers[index];
        if parts.has(Part::Norm) {
            let weight = layer.attention_norm.rows()?;
            let mut out = normed.rows_mut(rows, widths.hidden)?;
            rmsnorm(queue, residual.rows(rows, widths.hidden)?, weight, eps, &mut out)?;
        }
        if parts.has(Part::Qkv) {
            let bias = layer.qkv_bias.as_ref();
            let product = Product {
                x: normed.rows(rows, widths.hidden)?,
                weight: layer.qkv.rows()?,
                bias: bias.map(|bias| bias.buffer.rows(1, widths.qkv)).transpose()?,
                add: false,
            };
            let mut out = qkv.rows_mut(rows, widths.qkv)?;
            // The kernel adds no bias.
            if bias.is_none() && choices.skinny(Part::Qkv, rows, widths.qkv, widths.hidden) {
                skinny(queue, product.x, product.weight, SkinnyOut::Store(&mut out))?;
            } else {
                gemm.product(queue, product, &mut out)?;
            }
        }
        if parts.has(Part::Rope) {
            let rope = QkRope {
                qkv: qkv.rows(rows, widths.qkv)?,
                norm: head_norms(layer, eps)?,
                tables: rotations.tables()?,
                pairing: rotations.pairing,
                positions: step.positions,
                slots: step.slots,
            };
            qk_rope_write(queue, &rope, pages, index, &mut queries.rows_mut(rows, widths.query)?)?;
        }
        if parts.has(Part::Attention) {
            let over = Over { layer: index, config, pages, width: widths.query };
            over.attend(queue, step, queries, attended)?;
        }
        if parts.has(Part::Output) {
            let x = attended.rows(rows, widths.query)?;
            let sums = Sums { x, weight: layer.attention_output.rows()?, residual, widths };
            sums.add(queue, Part::Output, choices, gemm)?;
        }
        Ok(())
    }

    fn feed_forward(
        &mut self,
        queue: &Queue,
        rows: usize,
        index: usize,
        parts: Parts,
    ) -> Result<(), LaunchError> {
        let Self { config, weights, gemm, choices, scratch, .. } = self;
        let Scratch { widths, residual, normed, gate_up, activation, .. } = scratch;
        let joined = choices.skinny(Part::GateUp, rows, 2 * widths.ffn, widths.hidden);
        let layer = &weights.layers[index];
        if parts.has(Part::Norm) {
            let weight = layer.ffn_norm.rows()?;
            let mut out = normed.rows_mut(rows, widths.hidden)?;
            rmsnorm(queue, residual.rows(rows, widths.hidden)?, weight, config.rms_eps, &mut out)?;
        }
        if parts.has(Part::GateUp) {
            let x = normed.rows(rows, widths.hidden)?;
            let weight = layer.gate_up.rows()?;
            if joined {
                let mut out = activation.rows_mut(rows, widths.ffn)?;
                skinny(queue, x, weight, SkinnyOut::Silu(&mut out))?;
            } else {
                let product = Product { x, weight, bias: None, add: false };
                gemm.product(queue, product, &mut gate_up.rows_mut(rows, 2 * widths.ffn)?)?;
            }
        }
        if parts.has(Part::Activation) && !joined {
            let mut out = activation.rows_mut(rows, widths.ffn)?;
            silu_mul(queue, gate_up.rows(rows, 2 * widths.ffn)?, &mut out)?;
        }
        if parts.has(Part::Down) {
            let x = activation.rows(rows, widths.ffn)?;
            let sums = Sums { x, weight: layer.down.rows()?, residual, widths };
            sums.add(queue, Part::Down, choices, gemm)?;
        }
        Ok(())
    }

    /// Logits of the rows asked for.
    fn head(&mut self, queue: &Queue, step: &Step<'_>, parts: Parts) -> Result<(), LaunchError> {
        let Self { config, weights, gemm, choices, scratch, .. } = self;
        let Scratch { widths, residual, normed, picked, logits, .. } = scratch;
        let rows = step.picks.map_or(step.rows, |picks| picks.columns());
        if !parts.has(Part::Head) || rows == 0 {
            return Ok(());
        }
        let mut out = normed.rows_mut(rows, widths.hidden)?;
        let x = match step.picks {
            None => residual.rows(rows, widths.hidden)?,
            Some(picks) => {
                let from = residual.rows(step.rows, widths.hidden)?;
                gather(queue, from, picks, &mut picked.rows_mut(rows, widths.hidden)?)?;
                picked.rows(rows, widths.hidden)?
            }
        };
        rmsnorm(queue, x, weights.norm.rows()?, config.rms_eps, &mut out)?;
        let x = normed.rows(rows, widths.hidden)?;
        let weight = weights.head().rows()?;
        let mut out = logits.rows_mut(rows, config.vocabulary)?;
        if choices.skinny(Part::Head, rows, config.vocabulary, widths.hidden) {
            return skinny(queue, x, weight, SkinnyOut::Wide(&mut out));
        }
        gemm.product(queue, Product { x, weight, bias: None, add: false }, &mut out)
    }
}

/// A product that is added to the residual stream.
struct Sums<'a> {
    x: Rows<'a, bf16>,
    weight: Rows<'a, bf16>,
    residual: &'a mut Buffer<bf16>,
    widths: &'a Widths,
}

impl Sums<'_> {
    fn add(self, queue: &Queue, part: Part, choices: &Choices, gemm: &mut Gemm) -> Result<(), LaunchError> {
        let Self { x, weight, residual, widths } = self;
        let mut out = residual.rows_mut(x.count(), widths.hidden)?;
        if choices.skinny(part, x.count(), widths.hidden, x.columns()) {
            return skinny(queue, x, weight, SkinnyOut::Add(&mut out));
        }
        gemm.product(queue, Product { x, weight, bias: None, add: true }, &mut out)
    }
}

type HeadNorms<'a> = (Rows<'a, bf16>, Rows<'a, bf16>, f32);

fn head_norms(layer: &Layer, eps: f32) -> Result<Option<HeadNorms<'_>>, LaunchError> {
    let norms = layer.head_norms.as_ref();
    norms.map(|(query, key)| Ok((query.rows()?, key.rows()?, eps))).transpose()
}

/// What attention of one layer goes over.
struct Over<'a> {
    layer: usize,
    config: &'a ModelConfig,
    pages: &'a KvPages<Kv>,
    /// Elements of a row of queries.
    width: usize,
}

impl Over<'_> {
    fn splits(&self, batch: usize, multiprocessors: usize) -> usize {
        let group = self.config.heads / self.config.kv_heads;
        // A block takes up to 8 heads of a group.
        buckets::splits(batch, self.config.kv_heads * group.div_ceil(8), multiprocessors)
    }

    /// Sequences of one row first, then those of several.
    fn attend(
        &self,
        queue: &Queue,
        step: &Step<'_>,
        queries: &Buffer<bf16>,
        attended: &mut Buffer<bf16>,
    ) -> Result<(), LaunchError> {
        let scale = 1.0 / (self.config.head_dim as f32).sqrt();
        let window = self.config.sliding_window.map(|window| window as u32);
        let mut first = 0;
        if let Some(table) = step.decode {
            first = table.batch();
            let q = queries.rows(first, self.width)?;
            let splits = self.splits(first, queue.gpu().multiprocessors());
            let decode = Decode { q, table, layer: self.layer, scale, window, splits };
            decode_attention(queue, &decode, self.pages, &mut attended.rows_mut(first, self.width)?)?;
        }
        if let Some(Runs { table, starts, longest, tokens }) = step.prefill {
            let offset = first * self.width;
            let q = queries.strided(offset, tokens, self.width, self.width)?;
            let prefill = Prefill { q, start: starts, longest, table, layer: self.layer, scale, window };
            let mut out = attended.strided_mut(offset, tokens, self.width, self.width)?;
            prefill_attention(queue, &prefill, self.pages, &mut out)?;
        }
        Ok(())
    }
}
