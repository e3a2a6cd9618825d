//! Decoding that stays on the device: each step's ids are the next one's input, and the host only reads them.
//! One graph per batch size runs a whole step.

use std::collections::BTreeMap;

use shoal_kernels::{Graph, LaunchError, PAGE_TOKENS, Pinned, Queue};
use shoal_model::SequenceRows;

use crate::inputs::check;
use crate::profile::{Part, Parts};
use crate::{CudaModel, StepError, buckets};

/// A greedy decoding under way.
#[derive(Debug)]
pub(crate) struct Greedy {
    pub(crate) bucket: usize,
    batch: usize,
    /// Steps until some sequence has filled its pages.
    left: usize,
    /// Ids of the last step on their way to the host.
    ids: Pinned<u32>,
}

/// A whole step by batch size.
pub(crate) type Graphs = BTreeMap<usize, Graph>;

impl CudaModel {
    /// Puts a batch of one token each on the device. `pages` may reach beyond the token: each step uses up
    /// one position of them.
    pub fn start_greedy(&mut self, batch: &[SequenceRows<'_>]) -> Result<(), StepError> {
        check(batch, &self.limits)?;
        for (sequence, rows) in batch.iter().enumerate() {
            let tokens = rows.tokens.len();
            if tokens != 1 {
                return Err(StepError::NotDecode { sequence, tokens });
            }
            let known = &rows.pages[..rows.pages.len().min(self.limits.columns)];
            if let Some(page) = known.iter().find(|page| **page as usize >= self.limits.pages) {
                return Err(StepError::Page { page: *page, pages: self.limits.pages });
            }
        }
        let room =
            |rows: &SequenceRows<'_>| rows.pages.len().min(self.limits.columns) * PAGE_TOKENS - rows.start;
        let left = batch.iter().map(room).min().unwrap_or(0);
        let bucket = buckets::decode(batch.len());
        self.slate.fill(&self.queue, batch)?;
        let ids = Pinned::new(self.queue.gpu(), bucket)?;
        self.greedy = Some(Greedy { bucket, batch: batch.len(), left, ids });
        self.prepare_decode(bucket)
    }

    /// Captures the graph of a batch size, if there is none yet, on the batch that is in place.
    pub(crate) fn prepare_decode(&mut self, bucket: usize) -> Result<(), StepError> {
        if !self.graphs.contains_key(&bucket) {
            // Once without a graph, so that the library loads its kernels outside of the capture.
            self.enqueue_decode(bucket, &self.queue.clone(), Parts::REPEATABLE)?;
            let graph = self.capture_decode(bucket, Parts::ALL)?;
            self.graphs.insert(bucket, graph);
        }
        Ok(())
    }

    /// Enqueues one step of the greedy decoding; the host does not wait.
    pub fn step_greedy(&mut self) -> Result<(), StepError> {
        self.run_greedy(|model, bucket| match model.graphs.get(&bucket) {
            Some(graph) => graph.replay(),
            None => model.enqueue_decode(bucket, &model.queue.clone(), Parts::ALL),
        })
    }

    /// As [`Self::step_greedy`], launch by launch instead of by graph.
    pub fn step_greedy_eagerly(&mut self) -> Result<(), StepError> {
        self.run_greedy(|model, bucket| model.enqueue_decode(bucket, &model.queue.clone(), Parts::ALL))
    }

    fn run_greedy(
        &mut self,
        run: impl FnOnce(&mut Self, usize) -> Result<(), LaunchError>,
    ) -> Result<(), StepError> {
        let greedy = self.greedy.as_mut().ok_or(StepError::NotStarted)?;
        if greedy.left == 0 {
            let most = self.limits.columns * PAGE_TOKENS;
            return Err(StepError::TooMany { what: "steps for the pages given", found: 1, most });
        }
        greedy.left -= 1;
        let bucket = greedy.bucket;
        Ok(run(self, bucket)?)
    }

    /// Waits for the last step and returns its ids, one for each sequence.
    pub fn greedy_ids(&mut self) -> Result<&[u32], StepError> {
        let Self { greedy, slate, queue, .. } = self;
        let greedy = greedy.as_mut().ok_or(StepError::NotStarted)?;
        slate.send_ids(queue, &mut greedy.ids, greedy.bucket)?;
        Ok(&greedy.ids.get()?[..greedy.batch])
    }

    pub(crate) fn capture_decode(&mut self, bucket: usize, parts: Parts) -> Result<Graph, LaunchError> {
        let queue = self.queue.clone();
        queue.capture(|queue| self.enqueue_decode(bucket, queue, parts))
    }

    fn enqueue_decode(&mut self, bucket: usize, queue: &Queue, parts: Parts) -> Result<(), LaunchError> {
        let Self { runner, slate, .. } = self;
        runner.enqueue(queue, &slate.step(bucket)?, parts)?;
        if !parts.has(Part::Sample) {
            return Ok(());
        }
        let logits = runner.scratch.logits.rows(bucket, runner.config.vocabulary)?;
        slate.draw(queue, logits, &mut runner.scratch.argmax, &runner.pages)
    }
}
