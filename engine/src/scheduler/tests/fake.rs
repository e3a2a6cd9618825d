//! A model that is a hash of what it reads in the pages, so that a page mix-up is a wrong token.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use shoal_checkpoint::{Architecture, ModelConfig, Rope, RopeScaling, RopeStyle};
use shoal_model::{
    Backend, BackendError, Draw, KvDtype, KvGeometry, LogitRows, PageArena, PageRead, PageWrite, SequenceRows,
};

use crate::request::Sampling;
use crate::sampling::{History, sample};

pub(super) const VOCABULARY: usize = 40;
pub(super) const PAGE_TOKENS: usize = 4;
const ENTRY: usize = 8;

/// What a token leaves in its page: itself and its position.
pub(super) fn entry(token: u32, position: usize) -> [u8; ENTRY] {
    ((u64::from(token) << 32) | position as u64).to_le_bytes()
}

/// Logits after these tokens: all of them and their order matter.
pub(super) fn logits_after(entries: impl Iterator<Item = [u8; ENTRY]>) -> Vec<f32> {
    let mut hasher = blake3::Hasher::new();
    entries.for_each(|entry| {
        hasher.update(&entry);
    });
    let mut bytes = [0; VOCABULARY];
    hasher.finalize_xof().fill(&mut bytes);
    bytes.map(|byte| f32::from(byte) / 32.0).to_vec()
}

/// Lets steps through: all of them, or only those that a test allows.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: Mutex<Option<usize>>,
    changed: Condvar,
    steps: Mutex<Vec<Vec<(usize, usize)>>>,
}

impl Gate {
    /// From now on, only `steps` more.
    pub(super) fn allow(&self, steps: usize) {
        *self.closed.lock().expect("lock") = Some(steps);
        self.changed.notify_all();
    }

    pub(super) fn open(&self) {
        *self.closed.lock().expect("lock") = None;
        self.changed.notify_all();
    }

    /// (start, tokens) of every row of every step so far.
    pub(super) fn steps(&self) -> Vec<Vec<(usize, usize)>> {
        self.steps.lock().expect("lock").clone()
    }

    fn pass(&self, batch: &[SequenceRows<'_>]) {
        let closed = self.closed.lock().expect("lock");
        let waiting = |closed: &mut Option<usize>| *closed == Some(0);
        let (mut closed, timeout) =
            self.changed.wait_timeout_while(closed, Duration::from_secs(20), waiting).expect("lock");
        assert!(!timeout.timed_out(), "a test left the gate closed");
        if let Some(steps) = &mut *closed {
            *steps -= 1;
        }
        let rows = batch.iter().map(|row| (row.start, row.tokens.len())).collect();
        self.steps.lock().expect("lock").push(rows);
    }
}

pub(super) struct Fake {
    config: ModelConfig,
    geometry: KvGeometry,
    arena: Arc<PageArena>,
    /// Where pages are computed: the arena, or memory of a device's own.
    memory: Arc<PageArena>,
    gate: Arc<Gate>,
    /// Draws tokens itself, and what it drew.
    draws: bool,
    drawn: Vec<u32>,
    /// Fails from this step on.
    pub(super) lost_after: Option<usize>,
}

impl Fake {
    pub(super) fn new(pages: usize) -> (Self, Arc<Gate>) {
        let geometry =
            KvGeometry { layers: 1, kv_heads: 1, head_dim: 1, page_tokens: PAGE_TOKENS, dtype: KvDtype::F32 };
        let arena = PageArena::new(pages, geometry.page_bytes()).expect("small");
        let gate = Arc::new(Gate::default());
        let memory = Arc::clone(&arena);
        let fake = Self {
            config: config(),
            geometry,
            arena,
            memory,
            gate: Arc::clone(&gate),
            draws: false,
            drawn: Vec::new(),
            lost_after: None,
        };
        (fake, gate)
    }

    /// Computes in memory that transfers do not see, and draws tokens itself, as a GPU does.
    pub(super) fn apart(pages: usize) -> (Self, Arc<Gate>) {
        let (fake, gate) = Self::new(pages);
        let memory = PageArena::new(pages, fake.geometry.page_bytes()).expect("small");
        (Self { memory, draws: true, ..fake }, gate)
    }

    fn copy(from: &Arc<PageArena>, to: &Arc<PageArena>, pages: &[u32]) -> Result<(), BackendError> {
        if Arc::ptr_eq(from, to) {
            return Ok(());
        }
        for page in pages {
            let busy = BackendError::PageBusy { page: *page };
            let (Some(source), Some(mut target)) = (from.read(*page), to.write(*page)) else {
                return Err(busy);
            };
            target.copy_from_slice(&source);
        }
        Ok(())
    }

    /// Borrows what the batch reads and writes, all at once, as a backend with threads would.
    fn borrow(&self, row: &SequenceRows<'_>) -> Result<(Vec<PageRead>, Vec<PageWrite>), BackendError> {
        let end = row.start + row.tokens.len();
        let needed = end.div_ceil(PAGE_TOKENS);
        if row.pages.len() < needed {
            let (tokens, start, given) = (row.tokens.len(), row.start, row.pages.len());
            return Err(BackendError::Pages { tokens, start, needed, given });
        }
        let (before, written) = row.pages[..needed].split_at(row.start / PAGE_TOKENS);
        let busy = |page: u32| BackendError::PageBusy { page };
        let read = |page: &u32| self.memory.read(*page).ok_or_else(|| busy(*page));
        let write = |page: &u32| self.memory.write(*page).ok_or_else(|| busy(*page));
        let reads = before.iter().map(read).collect::<Result<_, _>>()?;
        Ok((reads, written.iter().map(write).collect::<Result<_, _>>()?))
    }
}

impl Backend for Fake {
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

    fn draws(&self) -> bool {
        self.draws
    }

    fn drawn(&self) -> &[u32] {
        &self.drawn
    }

    fn publish(&mut self, pages: &[u32]) -> Result<(), BackendError> {
        Self::copy(&self.memory, &self.arena, pages)
    }

    fn adopt(&mut self, pages: &[u32]) -> Result<(), BackendError> {
        Self::copy(&self.arena, &self.memory, pages)
    }

    fn forward(&mut self, batch: &[SequenceRows<'_>], logits: &mut Vec<f32>) -> Result<(), BackendError> {
        self.gate.pass(batch);
        if self.lost_after.is_some_and(|steps| self.gate.steps().len() > steps) {
            return Err(BackendError::Device("unplugged".into()));
        }
        logits.clear();
        self.drawn.clear();
        let mut borrowed = Vec::new();
        for row in batch {
            borrowed.push(self.borrow(row)?);
        }
        for (row, (reads, mut writes)) in batch.iter().zip(borrowed) {
            for (index, token) in row.tokens.iter().enumerate() {
                let position = row.start + index;
                let page = &mut writes[position / PAGE_TOKENS - reads.len()];
                let at = position % PAGE_TOKENS * ENTRY;
                page[at..at + ENTRY].copy_from_slice(&entry(*token, position));
            }
            let pages = reads.iter().map(|page| &page[..]).chain(writes.iter().map(|page| &page[..]));
            let entries = pages.flat_map(|page| page.as_chunks::<ENTRY>().0);
            let after = || logits_after(entries.take(row.start + row.tokens.len()).copied());
            match row.logits {
                LogitRows::None => {}
                LogitRows::Last => logits.extend(after()),
                LogitRows::Drawn(draw) => {
                    assert!(self.draws, "asked to draw and does not");
                    self.drawn.push(drawn(after(), draw));
                }
            }
        }
        Ok(())
    }
}

/// What the scheduler would sample from these logits, so that tests expect the same of both.
fn drawn(mut logits: Vec<f32>, draw: Draw) -> u32 {
    let Draw { temperature, seed, index } = draw;
    let sampling = Sampling { temperature, seed, ..super::ask(Vec::new(), 1).sampling };
    let history = History::new(&sampling, &[], &[]);
    let sampled = sample(&mut logits, &sampling, &history, None, index as usize).expect("no grammar");
    sampled.expect("every logit is a number").id
}

fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        hidden: 1,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        head_dim: 1,
        ffn: 1,
        vocabulary: VOCABULARY,
        rms_eps: 1e-5,
        rope: Rope { theta: 1e4, style: RopeStyle::Half, scaling: RopeScaling::None },
        qkv_bias: false,
        qk_norm: false,
        tied_head: true,
        sliding_window: None,
        max_context: 600,
        bos: None,
        eos: vec![0],
    }
}
