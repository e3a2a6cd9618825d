//! Where the time of a step goes: each part of it alone, in a graph of its own.

use shoal_kernels::LaunchError;
use shoal_model::SequenceRows;

use crate::inputs::Layout;
use crate::{CudaModel, StepError};

/// A kind of launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    Embedding,
    Norm,
    Qkv,
    Rope,
    Attention,
    Output,
    GateUp,
    Activation,
    Down,
    /// Last norm and head.
    Head,
    /// Argmax and the step to the next token.
    Sample,
}

impl Part {
    pub const ALL: [Self; 11] = [
        Self::Embedding,
        Self::Norm,
        Self::Qkv,
        Self::Rope,
        Self::Attention,
        Self::Output,
        Self::GateUp,
        Self::Activation,
        Self::Down,
        Self::Head,
        Self::Sample,
    ];
}

/// A set of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts(u16);

impl Parts {
    pub(crate) const ALL: Self = Self(u16::MAX);

    /// Everything that may run twice: sampling moves the sequences on.
    pub(crate) const REPEATABLE: Self = Self(!(1 << Part::Sample as u16));

    pub(crate) fn only(part: Part) -> Self {
        Self(1 << part as u16)
    }

    pub(crate) fn has(self, part: Part) -> bool {
        self.0 & (1 << part as u16) != 0
    }
}

/// Time of all launches of one kind in a decode step.
#[derive(Debug, Clone, Copy)]
pub struct PartTime {
    pub part: Part,
    pub us: f64,
}

impl CudaModel {
    /// Replays each part of the running greedy step alone and times it. What the step would compute next is
    /// lost: start again afterwards.
    pub fn profile_greedy(&mut self) -> Result<Vec<PartTime>, StepError> {
        const REPEATS: usize = 20;
        let batch = self.greedy.as_ref().ok_or(StepError::NotStarted)?.bucket;
        let mut times = Vec::new();
        for part in Part::ALL {
            let graph = self.capture_decode(batch, Parts::only(part))?;
            let mut samples = Vec::with_capacity(REPEATS);
            for _ in 0..REPEATS {
                samples.push(self.time(|_| graph.replay())?);
            }
            samples.sort_by(f64::total_cmp);
            times.push(PartTime { part, us: samples[REPEATS / 2] * 1e3 });
        }
        self.greedy = None;
        Ok(times)
    }

    /// Computes a step once, then times each part of it alone.
    pub fn profile_step(&mut self, batch: &[SequenceRows<'_>]) -> Result<Vec<PartTime>, StepError> {
        const REPEATS: usize = 5;
        self.enqueue(batch)?;
        let layout = Layout::of(batch);
        let queue = self.queue.clone();
        let mut times = Vec::new();
        // Sampling belongs to greedy steps alone.
        for part in Part::ALL.into_iter().filter(|part| *part != Part::Sample) {
            let mut samples = Vec::with_capacity(REPEATS);
            for _ in 0..REPEATS {
                samples.push(self.time(|model| {
                    let step = layout.views(&model.inputs)?;
                    model.runner.enqueue(&queue, &step, Parts::only(part))
                })?);
            }
            samples.sort_by(f64::total_cmp);
            times.push(PartTime { part, us: samples[REPEATS / 2] * 1e3 });
        }
        Ok(times)
    }

    /// Milliseconds on the device of what `run` enqueues.
    pub fn time(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<(), LaunchError>,
    ) -> Result<f64, LaunchError> {
        let queue = self.queue.clone();
        let begin = queue.mark()?;
        run(self)?;
        queue.mark()?.since(&begin)
    }
}
