//! A loaded model: what the scheduler drives.

use std::ops::Range;
use std::sync::Arc;

use shoal_checkpoint::{Checkpoint, ModelConfig};
use shoal_kernels::{
    Buffer, Chain, Gemm, Gpu, KvPages, LaunchError, PAGE_TOKENS, Pinned, Queue, draw, probe,
};
use shoal_model::{KvMemory, LogitRows, SequenceRows};

use crate::choice::{Choices, Products};
use crate::greedy::{Graphs, Greedy};
use crate::inputs::{Layout, Limits, check, pages_of, wants_row};
use crate::memory::MemoryPlan;
use crate::profile::Parts;
use crate::rope::Rotations;
use crate::runner::{Kv, Runner};
use crate::scratch::Scratch;
use crate::slate::Slate;
use crate::weights::{self, Weights};
use crate::{LoadError, StepError, buckets, support};

/// How to load.
pub struct CudaOptions<'a> {
    /// Which of the machine's GPUs.
    pub device: usize,
    pub kv: KvMemory,
    /// Tokens of a step at most, padding not counted.
    pub max_tokens: usize,
    /// Sequences of a step at most.
    pub max_sequences: usize,
    /// Tokens of a sequence at most.
    pub max_context: usize,
    pub products: Products,
    /// Told (bytes loaded, bytes in all) after each matrix.
    pub progress: &'a dyn Fn(u64, u64),
}

impl Default for CudaOptions<'_> {
    fn default() -> Self {
        Self {
            device: 0,
            kv: KvMemory::Pages(1024),
            max_tokens: 8192,
            max_sequences: 256,
            max_context: 8192,
            products: Products::default(),
            progress: &|_, _| {},
        }
    }
}

impl std::fmt::Debug for CudaOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaOptions")
            .field("device", &self.device)
            .field("kv", &self.kv)
            .field("max_tokens", &self.max_tokens)
            .field("max_sequences", &self.max_sequences)
            .field("max_context", &self.max_context)
            .field("products", &self.products)
            .finish_non_exhaustive()
    }
}

/// Rows of logits that wait for the host at a time.
const LOGIT_ROWS: usize = 16;

/// One model on one device.
#[derive(Debug)]
pub struct CudaModel {
    pub(crate) queue: Queue,
    pub(crate) limits: Limits,
    pub(crate) runner: Runner,
    memory: MemoryPlan,
    /// Of the steps that the host fills.
    pub(crate) inputs: Buffer<u32>,
    host_inputs: Pinned<u32>,
    host_logits: Pinned<f32>,
    /// What steps that are no graph draw.
    ids: Buffer<u32>,
    host_ids: Pinned<u32>,
    drawn: Vec<u32>,
    /// Of the steps that follow each other on the device.
    pub(crate) slate: Slate,
    pub(crate) graphs: Graphs,
    pub(crate) greedy: Option<Greedy>,
}

impl CudaModel {
    /// Loads a checkpoint, which is not needed afterwards.
    pub fn load(checkpoint: &Checkpoint, options: &CudaOptions<'_>) -> Result<Self, LoadError> {
        let progress = options.progress;
        Self::build(checkpoint.config(), options, |queue| weights::load(queue, checkpoint, progress))
    }

    /// Random weights of a shape. **For benches alone**: what it writes means nothing, and whoever shows its
    /// figures says that the weights were random.
    pub fn with_dummy_weights(config: &ModelConfig, options: &CudaOptions<'_>) -> Result<Self, LoadError> {
        Self::build(config, options, |queue| Ok(weights::dummy(queue, config)?))
    }

    fn build(
        config: &ModelConfig,
        options: &CudaOptions<'_>,
        load: impl FnOnce(&Queue) -> Result<Weights, LoadError>,
    ) -> Result<Self, LoadError> {
        support::check(config)?;
        check_options(options)?;
        let gpu = Gpu::open(options.device)?;
        let gemm = Gemm::new(&gpu)?;
        let memory = MemoryPlan::new(config, options, gpu.memory()?.0)?;
        let queue = Queue::new(&gpu, Chain::Programmatic)?;
        let weights = load(&queue)?;
        let context = options.max_context.next_multiple_of(PAGE_TOKENS);
        let limits = Limits {
            tokens: options.max_tokens,
            sequences: options.max_sequences,
            columns: pages_of(context),
            vocabulary: config.vocabulary,
            pages: memory.pages,
        };
        let runner = Runner {
            config: config.clone(),
            weights,
            rotations: Rotations::new(&queue, config, context)?,
            gemm,
            choices: Choices::new(options.products),
            scratch: Scratch::new(&gpu, config, limits.tokens, limits.sequences)?,
            pages: pages(&queue, config, memory.pages)?,
        };
        let (most, sequences) = (Layout::most(&limits), buckets::rows(limits.sequences));
        Ok(Self {
            inputs: Buffer::new(&gpu, most)?,
            host_inputs: Pinned::new(&gpu, most)?,
            host_logits: Pinned::new(&gpu, LOGIT_ROWS * config.vocabulary)?,
            ids: Buffer::new(&gpu, sequences)?,
            host_ids: Pinned::new(&gpu, sequences)?,
            drawn: Vec::new(),
            slate: Slate::new(&queue, &limits)?,
            graphs: Graphs::new(),
            greedy: None,
            queue,
            limits,
            runner,
            memory,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.runner.config
    }

    pub fn gpu(&self) -> &Arc<Gpu> {
        self.queue.gpu()
    }

    pub fn memory(&self) -> MemoryPlan {
        self.memory
    }

    /// The KV pages: one plain allocation, `[page][kv_head][layer][K|V][token][dim]`.
    pub fn pages(&self) -> &Buffer<Kv> {
        self.runner.pages.buffer()
    }

    /// Fills every page with random numbers, for benches that need a context and do not read it.
    pub fn fill_pages_with_noise(&mut self) -> Result<(), StepError> {
        Ok(probe::fill_random(&self.queue, self.runner.pages.buffer_mut(), 9, 1.0)?)
    }

    /// Computes one step. `logits` is cleared, then filled with one vocabulary-wide row per sequence that
    /// asked for one, in batch order; [`Self::drawn`] has the tokens of those that draw. A refused step has computed
    /// nothing.
    pub fn forward(&mut self, batch: &[SequenceRows<'_>], logits: &mut Vec<f32>) -> Result<(), StepError> {
        self.forward_beside(batch, logits, &mut || {})
    }

    /// As [`Self::forward`]; `beside` runs while the device computes.
    pub fn forward_beside(
        &mut self,
        batch: &[SequenceRows<'_>],
        logits: &mut Vec<f32>,
        beside: &mut dyn FnMut(),
    ) -> Result<(), StepError> {
        logits.clear();
        self.drawn.clear();
        let single = |rows: &SequenceRows<'_>| rows.tokens.len() == 1 && wants_row(rows);
        if !batch.is_empty() && batch.iter().all(single) {
            self.decode(batch)?;
        } else {
            self.mixed(batch)?;
        }
        beside();
        if batch.iter().any(draws) {
            self.take_drawn(batch)?;
        }
        let lasts = batch.iter().filter(|rows| wants_row(rows)).map(|rows| rows.logits == LogitRows::Last);
        for run in runs(lasts) {
            self.read_logits(run, logits)?;
        }
        Ok(self.queue.synchronize()?)
    }

    /// What the last [`Self::forward`] drew, in batch order.
    pub fn drawn(&self) -> &[u32] {
        &self.drawn
    }

    /// A step of one token for each sequence, by the graph of the next larger batch that there is.
    fn decode(&mut self, batch: &[SequenceRows<'_>]) -> Result<(), StepError> {
        check(batch, &self.limits)?;
        self.greedy = None;
        let larger = self.graphs.range(batch.len()..).next().map(|(bucket, _)| *bucket);
        let bucket = larger.unwrap_or_else(|| buckets::decode(batch.len()));
        self.slate.fill(&self.queue, batch)?;
        self.prepare_decode(bucket)?;
        if let Some(graph) = self.graphs.get(&bucket) {
            graph.replay()?;
        }
        Ok(self.slate.send_ids(&self.queue, &mut self.host_ids, batch.len())?)
    }

    /// Any other step.
    fn mixed(&mut self, batch: &[SequenceRows<'_>]) -> Result<(), StepError> {
        let wanted = self.enqueue(batch)?;
        if !batch.iter().any(draws) {
            return Ok(());
        }
        let layout = Layout::of(batch);
        let Self { runner, queue, inputs, ids, host_ids, .. } = self;
        let logits = runner.scratch.logits.rows(layout.picks, runner.config.vocabulary)?;
        let mut to = ids.rows_mut(1, layout.picks)?;
        draw(queue, logits, layout.draws(inputs)?, &mut runner.scratch.argmax, &mut to)?;
        Ok(host_ids.receive(queue, ids, 0, wanted)?)
    }

    /// Waits for the ids that are on their way, one for each row of logits.
    fn take_drawn(&mut self, batch: &[SequenceRows<'_>]) -> Result<(), StepError> {
        let rows = batch.iter().filter(|rows| wants_row(rows)).zip(self.host_ids.get()?);
        self.drawn.extend(rows.filter(|(rows, _)| draws(rows)).map(|(_, id)| *id));
        Ok(())
    }

    /// As [`Self::forward`] without waiting: logits stay on the device. Returns how many rows there are.
    pub fn enqueue(&mut self, batch: &[SequenceRows<'_>]) -> Result<usize, StepError> {
        check(batch, &self.limits)?;
        if batch.is_empty() {
            return Ok(0);
        }
        let layout = Layout::write(batch, self.host_inputs.get_mut()?);
        self.host_inputs.send(&self.queue, &mut self.inputs, 0, layout.len())?;
        let Self { runner, inputs, queue, .. } = self;
        runner.enqueue(queue, &layout.views(inputs)?, Parts::ALL)?;
        Ok(layout.wanted)
    }

    fn read_logits(&mut self, rows: Range<usize>, logits: &mut Vec<f32>) -> Result<(), LaunchError> {
        let width = self.runner.config.vocabulary;
        for first in rows.clone().step_by(LOGIT_ROWS) {
            let len = LOGIT_ROWS.min(rows.end - first) * width;
            self.host_logits.receive(&self.queue, &self.runner.scratch.logits, first * width, len)?;
            logits.extend_from_slice(&self.host_logits.get()?[..len]);
        }
        Ok(())
    }

    /// Waits for everything enqueued.
    pub fn synchronize(&self) -> Result<(), StepError> {
        Ok(self.queue.synchronize()?)
    }
}

fn draws(rows: &SequenceRows<'_>) -> bool {
    matches!(rows.logits, LogitRows::Drawn(_))
}

/// Runs of rows that are wanted.
fn runs(wanted: impl Iterator<Item = bool>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (row, _) in wanted.enumerate().filter(|(_, wanted)| *wanted) {
        match runs.last_mut() {
            Some(run) if run.end == row => run.end += 1,
            _ => runs.push(row..row + 1),
        }
    }
    runs
}

fn check_options(options: &CudaOptions<'_>) -> Result<(), LoadError> {
    let CudaOptions { max_tokens, max_sequences, max_context, .. } = *options;
    let bounds = [
        ("max_tokens", max_tokens, 1 << 20),
        ("max_sequences", max_sequences, 4096),
        ("max_context", max_context, 1 << 24),
    ];
    for (field, found, most) in bounds {
        if !(1..=most).contains(&found) {
            return Err(LoadError::Option { field, found, allowed: format!("1 to {most}") });
        }
    }
    Ok(())
}

/// Every byte is written once: a page's unused tokens hold numbers, never what another process left.
fn pages(queue: &Queue, config: &ModelConfig, count: usize) -> Result<KvPages<Kv>, LaunchError> {
    let shape = [config.layers, config.kv_heads, config.head_dim];
    let elements = KvPages::<Kv>::page_elements(shape[0], shape[1], shape[2]);
    let mut buffer = Buffer::new(queue.gpu(), count * elements)?;
    buffer.fill_bytes(queue, 0)?;
    KvPages::new(buffer, shape)
}
