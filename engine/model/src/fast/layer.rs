//! One layer over one panel of rows.

use crate::attention::{Attend, Queries};
use crate::matrix::{Input, Matrix, Output, eleven_bits};
use crate::step::{Pages, Row, Step};
use crate::weights::{Layer, Projection};
use crate::{KvGeometry, KvPart};

use super::kernels::{Activate, Narrow, Normalize};
use super::{FastBackend, PANEL, add_to, norm_into};

/// Intermediate values of a panel.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    input: Input,
    /// Of the matrix used last; `other` for a second one beside it.
    output: Output,
    other: Output,
    /// `[row][head][dim]`
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// `[kv head][row, padded to whole tiles][head of it][dim]`
    attended: Vec<f32>,
}

impl Scratch {
    pub(super) fn head(&mut self) -> (&mut Input, &mut Output) {
        (&mut self.input, &mut self.output)
    }
}

impl FastBackend {
    /// Rows `first .. first + PANEL` of the step through one layer.
    pub(super) fn panel(&mut self, layer: usize, first: usize, step: &mut Step) {
        let end = step.rows.len().min(first + PANEL);
        let rows = &step.rows[first..end];
        self.project(layer, first, rows);
        self.store(layer, rows, &mut step.pages);
        self.attend(layer, rows, &step.pages);
        let hidden = self.config.hidden;
        let weights = &self.weights.layers[layer];
        let stream = &mut self.stream[first * hidden..end * hidden];
        let Scratch { input, output, other, .. } = &mut self.scratch;
        weights.attention_output.multiply(input, output, &self.team);
        add_to(stream, hidden, output, &self.team);
        let source = |row: usize| &stream[row * hidden..][..hidden];
        norm_into(input, rows.len(), source, &weights.ffn_norm, self.config.rms_eps, &self.team);
        feed_forward(weights, input, output, other, &self.team);
        add_to(stream, hidden, output, &self.team);
    }

    /// Queries, keys and values of the rows, turned to their positions.
    fn project(&mut self, layer: usize, first: usize, rows: &[Row]) {
        let Self { config, weights, rope, team, scratch, stream, rotations, .. } = self;
        let (hidden, dim, eps) = (config.hidden, config.head_dim, config.rms_eps);
        let Scratch { input, output, queries, keys, values, .. } = scratch;
        let layer = &weights.layers[layer];
        let source = |row: usize| &stream[(first + row) * hidden..][..hidden];
        norm_into(input, rows.len(), source, &layer.attention_norm, eps, team);
        let rotation = |row: usize| &rotations[(first + row) * rope.pairs()..][..rope.pairs()];
        let scale = 1.0 / (dim as f32).sqrt();
        let mut project = |projection: &Projection<Matrix>, to: &mut Vec<f32>, turn: bool, scale: f32| {
            projection.matrix.multiply(input, output, team);
            let width = projection.matrix.outputs();
            to.resize(rows.len() * width, 0.0);
            team.chunks(to, width, |row, values| {
                output.copy_row(row, values);
                add_bias(projection.bias.as_deref(), values);
                for head in values.chunks_exact_mut(dim) {
                    if let Some(weight) = &projection.head_norm {
                        team.cpu().run(Normalize { values: head, weight, eps });
                    }
                    if turn {
                        rope.rotate(head, rotation(row));
                    }
                    for value in head {
                        *value = eleven_bits(*value * scale);
                    }
                }
            });
        };
        project(&layer.query, queries, true, scale);
        project(&layer.key, keys, true, 1.0);
        project(&layer.value, values, false, 1.0);
    }

    /// Writes keys and values into the pages of their positions.
    fn store(&mut self, layer: usize, rows: &[Row], pages: &mut [Pages]) {
        let Self { geometry, team, scratch, .. } = self;
        let width = geometry.kv_heads * geometry.head_dim;
        for (r, row) in rows.iter().enumerate() {
            let page = pages[row.sequence].get_mut(row.position / geometry.page_tokens);
            for (part, values) in [(KvPart::Key, &scratch.keys), (KvPart::Value, &scratch.values)] {
                let heads = values[r * width..][..width].chunks_exact(geometry.head_dim);
                for (head, values) in heads.enumerate() {
                    let to = &mut page[geometry.run(head, layer, part)];
                    team.cpu().run(Narrow { values, to: token(to, row.position, geometry) });
                }
            }
        }
    }

    /// Leaves the attended values in `scratch.input`.
    fn attend(&mut self, layer: usize, rows: &[Row], pages: &[Pages]) {
        let Self { config, geometry, team, scratch, .. } = self;
        let heads = config.heads / config.kv_heads;
        let width = heads * config.head_dim;
        let stride = config.heads * config.head_dim;
        // A tile shares widened pages, so one thread takes all rows at once.
        let tile = team.share(rows.len());
        let tiles = rows.len().div_ceil(tile);
        let Scratch { input, queries, attended, .. } = scratch;
        attended.resize(config.kv_heads * tiles * tile * width, 0.0);
        team.chunks(attended, tile * width, |task, out| {
            let (kv_head, first) = (task / tiles, task % tiles * tile);
            let rows = &rows[first..rows.len().min(first + tile)];
            let values = &queries[first * stride..];
            let window = config.sliding_window;
            let of = Queries { geometry, layer, kv_head, heads, window, rows, pages, values, stride };
            team.cpu().run(Attend { of, out });
        });
        input.resize(rows.len(), stride);
        input.fill(team, |row, values| {
            for (kv_head, values) in values.chunks_exact_mut(width).enumerate() {
                values.copy_from_slice(&attended[(kv_head * tiles * tile + row) * width..][..width]);
            }
        });
    }
}

fn feed_forward(
    layer: &Layer<Matrix>,
    input: &mut Input,
    output: &mut Output,
    other: &mut Output,
    team: &crate::team::Team,
) {
    layer.gate.multiply(input, output, team);
    layer.up.multiply(input, other, team);
    input.resize(input.rows, layer.gate.outputs());
    let (gate, up) = (&*output, &*other);
    input.fill(team, |row, out| team.cpu().run(Activate { gate, up, row, out }));
    layer.down.multiply(input, output, team);
}

fn add_bias(bias: Option<&[f32]>, values: &mut [f32]) {
    for (value, bias) in values.iter_mut().zip(bias.unwrap_or_default()) {
        *value += bias;
    }
}

/// A token's part of a run.
fn token<'a>(run: &'a mut [u8], position: usize, geometry: &KvGeometry) -> &'a mut [u8] {
    let bytes = geometry.head_dim * geometry.dtype.bytes();
    &mut run[position % geometry.page_tokens * bytes..][..bytes]
}
