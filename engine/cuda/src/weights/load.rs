//! Weights of a checkpoint: rows become bf16 in page-locked memory while the rows before are copied.

use half::bf16;
use shoal_checkpoint::{Checkpoint, DType, TensorView, dequantize};
use shoal_kernels::{Buffer, LaunchError, Pinned, Queue};

use super::{Matrix, Recipe, Weights, assemble};
use crate::LoadError;

/// Elements of each of the two staging areas: 32 MiB.
const STAGED: usize = 16 << 20;

/// Told the bytes of the file read so far and in all after each matrix.
pub(crate) type Progress<'a> = &'a dyn Fn(u64, u64);

pub(crate) fn load(
    queue: &Queue,
    checkpoint: &Checkpoint,
    progress: Progress<'_>,
) -> Result<Weights, LoadError> {
    let config = checkpoint.config();
    let sizes = config.tensors().into_iter();
    let total = sizes.filter_map(|t| Some(checkpoint.tensor(&t.name).ok()?.bytes.len() as u64)).sum();
    let mut staging = Staging::new(queue)?;
    let mut loaded = 0;
    let weights = assemble(config, &mut |recipe| {
        let views = views(checkpoint, &recipe)?;
        let matrix = staging.upload(&recipe, &views)?;
        loaded += views.iter().map(|view| view.bytes.len() as u64).sum::<u64>();
        progress(loaded, total);
        Ok::<_, LoadError>(matrix)
    })?;
    queue.synchronize()?;
    Ok(weights)
}

/// The recipe's tensors, in the shape that it expects.
fn views<'a>(checkpoint: &'a Checkpoint, recipe: &Recipe) -> Result<Vec<TensorView<'a>>, LoadError> {
    recipe
        .tensors
        .iter()
        .map(|(name, rows)| {
            let view = checkpoint.tensor(name)?;
            // Vectors have one dimension, whether they are one row here or one column.
            let expected =
                if view.shape.len() == 1 { vec![rows * recipe.inputs] } else { vec![*rows, recipe.inputs] };
            if view.shape != expected {
                let (name, found) = (name.clone(), view.shape);
                return Err(LoadError::Shape { name, expected, found });
            }
            Ok(view)
        })
        .collect()
}

/// Two page-locked areas in turn: one is filled while the other is copied.
struct Staging<'a> {
    queue: &'a Queue,
    areas: [Pinned<bf16>; 2],
    turn: usize,
    /// One row on its way from the file's format to bf16.
    row: Vec<f32>,
}

impl<'a> Staging<'a> {
    fn new(queue: &'a Queue) -> Result<Self, LaunchError> {
        let area = || Pinned::new(queue.gpu(), STAGED);
        Ok(Self { queue, areas: [area()?, area()?], turn: 0, row: Vec::new() })
    }

    fn upload(&mut self, recipe: &Recipe, views: &[TensorView<'_>]) -> Result<Matrix, LoadError> {
        let (outputs, inputs) = (recipe.outputs(), recipe.inputs);
        let mut buffer = Buffer::new(self.queue.gpu(), outputs * inputs)?;
        let rows_at_once = (STAGED / inputs).max(1);
        if inputs > STAGED {
            return Err(LoadError::Option {
                field: "row length",
                found: inputs,
                allowed: format!("up to {STAGED}"),
            });
        }
        for first in (0..outputs).step_by(rows_at_once) {
            let rows = rows_at_once.min(outputs - first);
            let area = &mut self.areas[self.turn];
            self.turn = 1 - self.turn;
            for (row, to) in (first..first + rows).zip(area.get_mut()?.chunks_exact_mut(inputs)) {
                let (tensor, row) = recipe.source(row);
                narrow(&views[tensor], row, to, &mut self.row);
            }
            area.send(self.queue, &mut buffer, first * inputs, rows * inputs)?;
        }
        Ok(Matrix { buffer, outputs, inputs })
    }
}

/// Row `row` of `to.len()` elements as bf16, rounded to nearest even. Rows of a block format are whole
/// blocks; a checkpoint is not opened otherwise.
fn narrow(view: &TensorView<'_>, row: usize, to: &mut [bf16], wide: &mut Vec<f32>) {
    let (elements, bytes) = view.dtype.block();
    let row_bytes = to.len() / elements * bytes;
    let from = &view.bytes[row * row_bytes..][..row_bytes];
    if view.dtype == DType::BF16 {
        for (to, from) in to.iter_mut().zip(from.as_chunks().0) {
            *to = bf16::from_le_bytes(*from);
        }
        return;
    }
    wide.resize(to.len(), 0.0);
    dequantize(view.dtype, from, wide);
    for (to, from) in to.iter_mut().zip(wide) {
        *to = bf16::from_f32(*from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_any_format_becomes_bf16() {
        let numbers = [1.0_f32, -2.5, 0.125, 3e38, 7.0, -0.0];
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView { name: "t", dtype: DType::F32, shape: vec![2, 3], bytes: &bytes };
        let mut to = [bf16::ZERO; 3];
        narrow(&view, 1, &mut to, &mut Vec::new());
        assert_eq!(to, [3e38, 7.0, -0.0].map(bf16::from_f32));
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
        let view = TensorView { name: "t", dtype: DType::BF16, shape: vec![2, 3], bytes: &bytes };
        narrow(&view, 0, &mut to, &mut Vec::new());
        assert_eq!(to, [1.0, -2.5, 0.125].map(bf16::from_f32));
    }
}
