//! Random weights of any shape, for benches alone: their output means nothing.
//!
//! Never zeros: a product of zeros runs measurably faster than one of real numbers.

use shoal_checkpoint::ModelConfig;
use shoal_kernels::{Buffer, LaunchError, Queue, probe};

use super::{Matrix, Recipe, Weights, assemble};

/// The same numbers for the same configuration. Activations keep their size from layer to layer.
pub(crate) fn dummy(queue: &Queue, config: &ModelConfig) -> Result<Weights, LaunchError> {
    let mut seed = 1;
    let weights = assemble(config, &mut |recipe: Recipe| {
        let (outputs, inputs) = (recipe.outputs(), recipe.inputs);
        // A last element without a pair is filled too.
        let mut buffer = Buffer::new(queue.gpu(), (outputs * inputs).next_multiple_of(2))?;
        seed += 1;
        let scale = if outputs == 1 { 1.0 } else { (3.0 / inputs as f32).sqrt() };
        probe::fill_random(queue, &mut buffer, seed, scale)?;
        Ok::<_, LaunchError>(Matrix { buffer, outputs, inputs })
    })?;
    queue.synchronize()?;
    Ok(weights)
}
