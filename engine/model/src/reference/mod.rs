//! The oracle: every row by itself, every sum in order, all in f32.

mod arithmetic;

use std::sync::Arc;

use shoal_checkpoint::{Checkpoint, ModelConfig};

use crate::rope::RopeFrequencies;
use crate::step::{Pages, Row, Step};
use crate::weights::{Layer, Loader, Projection, Weights};
use crate::{Backend, BackendError, KvGeometry, KvPart, LoadError, LoadOptions, PageArena, SequenceRows};

use arithmetic::{Dense, add, dot, read, rms_norm, silu, softmax, write};

#[derive(Debug)]
pub(crate) struct ReferenceBackend {
    config: ModelConfig,
    geometry: KvGeometry,
    arena: Arc<PageArena>,
    weights: Weights<Dense>,
    rope: RopeFrequencies,
}

impl ReferenceBackend {
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        options: &LoadOptions<'_>,
        geometry: KvGeometry,
        arena: Arc<PageArena>,
    ) -> Result<Self, LoadError> {
        let dense = |view: &shoal_checkpoint::TensorView<'_>| {
            Ok(Dense { inputs: view.shape[1], weights: view.to_f32()? })
        };
        let weights = Loader::new(checkpoint, options.progress, dense).load()?;
        let config = checkpoint.config().clone();
        let rope = RopeFrequencies::new(&config.rope, config.head_dim);
        Ok(Self { config, geometry, arena, weights, rope })
    }

    /// The residual stream after all layers.
    fn token(&self, row: Row, pages: &mut Pages) -> Vec<f32> {
        let eps = self.config.rms_eps;
        let mut stream = self.weights.embedding.row(row.token as usize).to_vec();
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let input = rms_norm(&stream, &layer.attention_norm, eps);
            let attended = self.attention(index, layer, &input, row.position, pages);
            add(&mut stream, &layer.attention_output.multiply(&attended));
            let input = rms_norm(&stream, &layer.ffn_norm, eps);
            let (gate, up) = (layer.gate.multiply(&input), layer.up.multiply(&input));
            let gated: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| silu(*g) * u).collect();
            add(&mut stream, &layer.down.multiply(&gated));
        }
        stream
    }

    fn attention(
        &self,
        index: usize,
        layer: &Layer<Dense>,
        input: &[f32],
        position: usize,
        pages: &mut Pages,
    ) -> Vec<f32> {
        let queries = self.heads(&layer.query, input, Some(position));
        let keys = self.heads(&layer.key, input, Some(position));
        let values = self.heads(&layer.value, input, None);
        let page = pages.get_mut(position / self.geometry.page_tokens);
        for kv_head in 0..self.config.kv_heads {
            let head = kv_head * self.config.head_dim..(kv_head + 1) * self.config.head_dim;
            write(self.slot(page, kv_head, index, KvPart::Key, position), &keys[head.clone()]);
            write(self.slot(page, kv_head, index, KvPart::Value, position), &values[head]);
        }
        let per_kv_head = self.config.heads / self.config.kv_heads;
        let queries = queries.chunks_exact(self.config.head_dim).enumerate();
        queries.flat_map(|(head, q)| self.head(index, head / per_kv_head, q, position, pages)).collect()
    }

    /// A projection into heads, turned to `position` if there is one.
    fn heads(&self, projection: &Projection<Dense>, input: &[f32], position: Option<usize>) -> Vec<f32> {
        let mut all = projection.matrix.multiply(input);
        if let Some(bias) = &projection.bias {
            add(&mut all, bias);
        }
        let mut rotation = Vec::new();
        if let Some(position) = position {
            self.rope.push_rotation(position, &mut rotation);
        }
        for head in all.chunks_exact_mut(self.config.head_dim) {
            if let Some(weight) = &projection.head_norm {
                head.copy_from_slice(&rms_norm(head, weight, self.config.rms_eps));
            }
            if position.is_some() {
                self.rope.rotate(head, &rotation);
            }
        }
        all
    }

    /// Softmax over the visible positions, then the weighted sum of their values.
    fn head(&self, layer: usize, kv_head: usize, query: &[f32], position: usize, pages: &Pages) -> Vec<f32> {
        let end = position + 1;
        let begin = end.saturating_sub(self.config.sliding_window.unwrap_or(end));
        let scale = 1.0 / (self.config.head_dim as f32).sqrt();
        let part = |position, part| {
            let page = pages.get(position / self.geometry.page_tokens);
            read(&page[self.slot_range(kv_head, layer, part, position)])
        };
        let mut weights: Vec<f32> = (begin..end).map(|p| dot(query, &part(p, KvPart::Key)) * scale).collect();
        softmax(&mut weights);
        let mut out = vec![0.0; self.config.head_dim];
        for (p, weight) in (begin..end).zip(weights) {
            for (out, value) in out.iter_mut().zip(part(p, KvPart::Value)) {
                *out += weight * value;
            }
        }
        out
    }

    fn slot_range(
        &self,
        kv_head: usize,
        layer: usize,
        part: KvPart,
        position: usize,
    ) -> std::ops::Range<usize> {
        let bytes = self.geometry.head_dim * self.geometry.dtype.bytes();
        let start =
            self.geometry.run(kv_head, layer, part).start + position % self.geometry.page_tokens * bytes;
        start..start + bytes
    }

    fn slot<'a>(
        &self,
        page: &'a mut [u8],
        kv_head: usize,
        layer: usize,
        part: KvPart,
        position: usize,
    ) -> &'a mut [u8] {
        &mut page[self.slot_range(kv_head, layer, part, position)]
    }
}

impl Backend for ReferenceBackend {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn geometry(&self) -> &KvGeometry {
        &self.geometry
    }

    fn arena(&self) -> &Arc<PageArena> {
        &self.arena
    }

    fn numerics(&self) -> &'static str {
        "reference"
    }

    fn forward(&mut self, batch: &[SequenceRows<'_>], logits: &mut Vec<f32>) -> Result<(), BackendError> {
        let mut step = Step::new(batch, self.config.vocabulary, &self.geometry, &self.arena)?;
        logits.clear();
        for row in &step.rows {
            let stream = self.token(*row, &mut step.pages[row.sequence]);
            if row.wants_logits {
                let normed = rms_norm(&stream, &self.weights.norm, self.config.rms_eps);
                logits.extend(self.weights.head().multiply(&normed));
            }
        }
        Ok(())
    }
}
