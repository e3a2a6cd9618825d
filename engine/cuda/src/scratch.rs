//! Activations of a step, allocated once for the largest.

use std::sync::Arc;

use half::bf16;
use shoal_checkpoint::ModelConfig;
use shoal_kernels::{ArgmaxScratch, Buffer, Gpu, LaunchError};

use crate::buckets;
use crate::memory::Widths;

/// Every array is `[rows][width]`.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) widths: Widths,
    pub(crate) residual: Buffer<bf16>,
    pub(crate) normed: Buffer<bf16>,
    pub(crate) qkv: Buffer<bf16>,
    pub(crate) queries: Buffer<bf16>,
    pub(crate) attended: Buffer<bf16>,
    pub(crate) gate_up: Buffer<bf16>,
    pub(crate) activation: Buffer<bf16>,
    /// Residual rows that get logits.
    pub(crate) picked: Buffer<bf16>,
    /// `[rows][vocabulary]`
    pub(crate) logits: Buffer<f32>,
    pub(crate) argmax: ArgmaxScratch,
}

impl Scratch {
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        config: &ModelConfig,
        tokens: usize,
        sequences: usize,
    ) -> Result<Self, LaunchError> {
        let (rows, sequences) = (buckets::rows(tokens.max(sequences)), buckets::rows(sequences));
        let widths = Widths::of(config);
        let array = |width: usize| Buffer::new(gpu, rows * width);
        Ok(Self {
            widths,
            residual: array(widths.hidden)?,
            normed: array(widths.hidden)?,
            qkv: array(widths.qkv)?,
            queries: array(widths.query)?,
            attended: array(widths.query)?,
            gate_up: array(2 * widths.ffn)?,
            activation: array(widths.ffn)?,
            picked: Buffer::new(gpu, sequences * widths.hidden)?,
            logits: Buffer::new(gpu, sequences * config.vocabulary)?,
            argmax: ArgmaxScratch::new(gpu, sequences)?,
        })
    }
}
