//! Greedy decoding that stays on the device: each step's ids are the next one's input, and the host only
//! reads them. One graph per batch size runs a whole step.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_kernels::{
    Buffer, Gpu, Graph, LaunchError, NO_SLOT, PAGE_TOKENS, PageTable, Pinned, Queue, Standing, advance,
    argmax,
};
use shoal_model::SequenceRows;

use crate::inputs::{Limits, Step, check};
use crate::profile::{Part, Parts};
use crate::{CudaModel, StepError, buckets};

/// A decode batch's inputs, where graphs find them. Padding rows have length 0.
#[derive(Debug)]
pub(crate) struct Slate {
    ids: Buffer<u32>,
    positions: Buffer<u32>,
    slots: Buffer<u32>,
    lengths: Buffer<u32>,
    /// `[rows][columns]`; an entry that no page fills is past the arena.
    table: Buffer<u32>,
    columns: usize,
    /// For the four arrays one after another, then the table.
    host: Pinned<u32>,
}

impl Slate {
    pub(crate) fn new(gpu: &Arc<Gpu>, limits: &Limits) -> Result<Self, LaunchError> {
        let (rows, columns) = (buckets::decode(limits.sequences), limits.columns);
        let array = |len| Buffer::new(gpu, len);
        Ok(Self {
            ids: array(rows)?,
            positions: array(rows)?,
            slots: array(rows)?,
            lengths: array(rows)?,
            table: array(rows * columns)?,
            columns,
            host: Pinned::new(gpu, rows * (4 + columns))?,
        })
    }

    /// Puts a batch, one token each, into the first of `rows` rows. None at all is `rows` rows of padding.
    pub(crate) fn fill(
        &mut self,
        queue: &Queue,
        batch: &[SequenceRows<'_>],
        rows: usize,
    ) -> Result<(), LaunchError> {
        let columns = self.columns;
        let host = self.host.get_mut()?;
        host[..rows * 4].fill(0);
        host[rows * 2..rows * 3].fill(NO_SLOT);
        host[rows * 4..rows * (4 + columns)].fill(u32::MAX);
        for (row, sequence) in batch.iter().enumerate() {
            let position = sequence.start;
            let page = sequence.pages[position / PAGE_TOKENS];
            host[row] = sequence.tokens[0];
            host[rows + row] = position as u32;
            host[2 * rows + row] = page * PAGE_TOKENS as u32 + (position % PAGE_TOKENS) as u32;
            host[3 * rows + row] = position as u32 + 1;
            let known = sequence.pages.len().min(columns);
            host[rows * 4 + row * columns..][..known].copy_from_slice(&sequence.pages[..known]);
        }
        let Self { ids, positions, slots, lengths, table, host, .. } = self;
        for (place, array) in [ids, positions, slots, lengths].into_iter().enumerate() {
            host.send_part(queue, place * rows, array, 0, rows)?;
        }
        host.send_part(queue, rows * 4, table, 0, rows * columns)
    }

    fn step(&self, rows: usize) -> Result<Step<'_>, LaunchError> {
        let table =
            PageTable { pages: self.table.rows(rows, self.columns)?, lengths: self.lengths.rows(1, rows)? };
        Ok(Step {
            rows,
            ids: self.ids.rows(1, rows)?,
            positions: self.positions.rows(1, rows)?,
            slots: self.slots.rows(1, rows)?,
            decode: Some(table),
            prefill: None,
            picks: None,
        })
    }
}

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
        self.slate.fill(&self.queue, batch, bucket)?;
        let ids = Pinned::new(self.queue.gpu(), bucket)?;
        self.greedy = Some(Greedy { bucket, batch: batch.len(), left, ids });
        self.prepare_greedy(bucket)
    }

    /// Captures the graph of a batch size, if there is none yet.
    pub(crate) fn prepare_greedy(&mut self, bucket: usize) -> Result<(), StepError> {
        if !self.graphs.contains_key(&bucket) {
            // Once without a graph, so that the library loads its kernels outside of the capture.
            self.enqueue_greedy(bucket, &self.queue.clone(), Parts::REPEATABLE)?;
            let graph = self.capture_greedy(bucket, Parts::ALL)?;
            self.graphs.insert(bucket, graph);
        }
        Ok(())
    }

    /// Enqueues one step of the greedy decoding; the host does not wait.
    pub fn step_greedy(&mut self) -> Result<(), StepError> {
        self.run_greedy(|model, bucket| match model.graphs.get(&bucket) {
            Some(graph) => graph.replay(),
            None => model.enqueue_greedy(bucket, &model.queue.clone(), Parts::ALL),
        })
    }

    /// As [`Self::step_greedy`], launch by launch instead of by graph.
    pub fn step_greedy_eagerly(&mut self) -> Result<(), StepError> {
        self.run_greedy(|model, bucket| model.enqueue_greedy(bucket, &model.queue.clone(), Parts::ALL))
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
        greedy.ids.receive(queue, &slate.ids, 0, greedy.bucket)?;
        Ok(&greedy.ids.get()?[..greedy.batch])
    }

    pub(crate) fn capture_greedy(&mut self, bucket: usize, parts: Parts) -> Result<Graph, LaunchError> {
        let queue = self.queue.clone();
        queue.capture(|queue| self.enqueue_greedy(bucket, queue, parts))
    }

    fn enqueue_greedy(&mut self, bucket: usize, queue: &Queue, parts: Parts) -> Result<(), LaunchError> {
        let Self { runner, slate, .. } = self;
        runner.enqueue(queue, &slate.step(bucket)?, parts)?;
        if !parts.has(Part::Sample) {
            return Ok(());
        }
        let logits = runner.scratch.logits.rows(bucket, runner.config.vocabulary)?;
        let Slate { ids, positions, slots, lengths, table, columns, .. } = slate;
        argmax(queue, logits, &mut runner.scratch.argmax, &mut ids.rows_mut(1, bucket)?)?;
        let mut standing = Standing {
            lengths: &mut lengths.rows_mut(1, bucket)?,
            positions: &mut positions.rows_mut(1, bucket)?,
            slots: &mut slots.rows_mut(1, bucket)?,
        };
        advance(queue, table.rows(bucket, *columns)?, &runner.pages, &mut standing)
    }
}
