//! Cosines and sines of every position, with the model's scaling.

use shoal_checkpoint::{ModelConfig, RopeStyle};
use shoal_kernels::{Buffer, LaunchError, Pairing, Queue, RopeTables};
use shoal_model::RopeFrequencies;

#[derive(Debug)]
pub(crate) struct Rotations {
    pub(crate) pairing: Pairing,
    positions: usize,
    pairs: usize,
    cos: Buffer<f32>,
    sin: Buffer<f32>,
}

impl Rotations {
    pub(crate) fn new(queue: &Queue, config: &ModelConfig, positions: usize) -> Result<Self, LaunchError> {
        let frequencies = RopeFrequencies::new(&config.rope, config.head_dim);
        let mut rotations = Vec::with_capacity(positions * frequencies.pairs());
        (0..positions).for_each(|position| frequencies.push_rotation(position, &mut rotations));
        let (cos, sin): (Vec<f32>, Vec<f32>) = rotations.into_iter().unzip();
        let pairing = match config.rope.style {
            RopeStyle::Half => Pairing::Half,
            RopeStyle::Interleaved => Pairing::Interleaved,
        };
        let (cos, sin) = (Buffer::from_host(queue, &cos)?, Buffer::from_host(queue, &sin)?);
        Ok(Self { pairing, positions, pairs: frequencies.pairs(), cos, sin })
    }

    pub(crate) fn tables(&self) -> Result<RopeTables<'_>, LaunchError> {
        let rows = |buffer| Buffer::rows(buffer, self.positions, self.pairs);
        Ok(RopeTables { cos: rows(&self.cos)?, sin: rows(&self.sin)? })
    }
}
