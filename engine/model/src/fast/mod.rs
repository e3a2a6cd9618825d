//! The product's CPU backend: weights in their file's format, f16 keys and values.

mod kernels;
mod layer;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use shoal_checkpoint::{Checkpoint, ModelConfig, TensorView};

use crate::matrix::{Input, Matrix, Output};
use crate::rope::RopeFrequencies;
use crate::simd::Cpu;
use crate::step::{Row, Step};
use crate::team::Team;
use crate::weights::{Loader, Weights};
use crate::{Backend, BackendError, KvGeometry, LoadError, LoadOptions, PageArena, SequenceRows};

use kernels::Normalize;
use layer::Scratch;

/// Rows that go through a layer together: few enough for their values to stay in the cache, enough to
/// read each weight seldom.
const PANEL: usize = 64;

#[derive(Debug)]
pub(crate) struct FastBackend {
    config: ModelConfig,
    geometry: KvGeometry,
    arena: Arc<PageArena>,
    weights: Weights<Matrix>,
    rope: RopeFrequencies,
    team: Team,
    scratch: Scratch,
    /// Residual stream, `[row][hidden]`.
    stream: Vec<f32>,
    /// `[row][pair]`
    rotations: Vec<(f32, f32)>,
}

impl FastBackend {
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        options: &LoadOptions<'_>,
        geometry: KvGeometry,
        arena: Arc<PageArena>,
    ) -> Result<Self, LoadError> {
        Self::load_for(Cpu::best(), checkpoint, options, geometry, arena)
    }

    pub(crate) fn load_for(
        cpu: Cpu,
        checkpoint: &Checkpoint,
        options: &LoadOptions<'_>,
        geometry: KvGeometry,
        arena: Arc<PageArena>,
    ) -> Result<Self, LoadError> {
        let threads = options.threads;
        let team = Team::new(threads, cpu).map_err(|source| LoadError::Threads { threads, source })?;
        let weights = Loader::new(checkpoint, options.progress, |view| pack(view, &team)).load()?;
        let config = checkpoint.config().clone();
        let rope = RopeFrequencies::new(&config.rope, config.head_dim);
        let (scratch, stream, rotations) = (Scratch::default(), Vec::new(), Vec::new());
        Ok(Self { config, geometry, arena, weights, rope, team, scratch, stream, rotations })
    }

    /// Embeddings and rotations of the step's rows.
    fn begin(&mut self, rows: &[Row]) {
        self.stream.resize(rows.len() * self.config.hidden, 0.0);
        for (row, values) in rows.iter().zip(self.stream.chunks_exact_mut(self.config.hidden)) {
            self.weights.embedding.row(row.token as usize, values);
        }
        self.rotations.clear();
        for row in rows {
            self.rope.push_rotation(row.position, &mut self.rotations);
        }
    }

    fn head(&mut self, rows: &[Row], logits: &mut Vec<f32>) {
        let Self { config, weights, team, scratch, stream, .. } = self;
        let wanted: Vec<usize> = (0..rows.len()).filter(|r| rows[*r].wants_logits).collect();
        logits.clear();
        logits.resize(wanted.len() * config.vocabulary, 0.0);
        let (input, output) = scratch.head();
        for (rows, logits) in wanted.chunks(PANEL).zip(logits.chunks_mut(PANEL * config.vocabulary)) {
            let source = |row: usize| &stream[rows[row] * config.hidden..][..config.hidden];
            norm_into(input, rows.len(), source, &weights.norm, config.rms_eps, team);
            weights.head().multiply(input, output, team);
            team.chunks(logits, config.vocabulary, |row, logits| output.copy_row(row, logits));
        }
    }
}

impl Backend for FastBackend {
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
        "fast"
    }

    fn forward(&mut self, batch: &[SequenceRows<'_>], logits: &mut Vec<f32>) -> Result<(), BackendError> {
        let mut step = Step::new(batch, self.config.vocabulary, &self.geometry, &self.arena)?;
        self.begin(&step.rows);
        for layer in 0..self.config.layers {
            for first in (0..step.rows.len()).step_by(PANEL) {
                self.panel(layer, first, &mut step);
            }
        }
        self.head(&step.rows, logits);
        Ok(())
    }
}

fn pack(view: &TensorView<'_>, team: &Team) -> Result<Matrix, LoadError> {
    let (outputs, inputs) = (view.shape[0], view.shape[1]);
    let (elements, bytes) = view.dtype.block();
    let expected = outputs * inputs / elements * bytes;
    if view.bytes.len() != expected || !inputs.is_multiple_of(elements) {
        return Err(LoadError::Size { name: view.name.to_owned(), expected, found: view.bytes.len() });
    }
    Ok(Matrix::pack(view.dtype, outputs, inputs, view.bytes, team))
}

/// Fills `input` with the RMS norm of `rows` rows.
fn norm_into<'a>(
    input: &mut Input,
    rows: usize,
    source: impl Fn(usize) -> &'a [f32] + Sync,
    weight: &[f32],
    eps: f32,
    team: &Team,
) {
    input.resize(rows, weight.len());
    input.fill(team, |row, values| {
        values.copy_from_slice(source(row));
        team.cpu().run(Normalize { values, weight, eps });
    });
}

/// Adds each row of `output` to the residual stream.
fn add_to(stream: &mut [f32], hidden: usize, output: &Output, team: &Team) {
    team.chunks(stream, hidden, |row, stream| {
        output.for_row(row, |first, values| {
            for (to, value) in stream[first..].iter_mut().zip(values) {
                *to += value;
            }
        });
    });
}
