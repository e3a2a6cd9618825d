//! Loading synthetic models and driving backends.

use shoal_checkpoint::{Checkpoint, DType, SyntheticModel};
use shoal_model::{Backend, Compute, KvMemory, LoadOptions, LogitRows, SequenceRows, load};

/// How a test loads a model.
pub(crate) struct Setup {
    pub(crate) compute: Compute,
    pub(crate) threads: usize,
    pub(crate) pages: usize,
    pub(crate) page_tokens: usize,
}

impl Setup {
    pub(crate) const FAST: Self = Self { compute: Compute::Fast, threads: 1, pages: 32, page_tokens: 16 };
    pub(crate) const REFERENCE: Self = Self { compute: Compute::Reference, ..Self::FAST };

    pub(crate) fn load(&self, checkpoint: &Checkpoint) -> Box<dyn Backend> {
        let options = LoadOptions {
            compute: self.compute,
            threads: self.threads,
            kv: KvMemory::Pages(self.pages),
            page_tokens: self.page_tokens,
            progress: &|_, _| {},
        };
        load(checkpoint, &options).expect("a synthetic model loads")
    }
}

/// A synthetic model with its matrices in `dtype`.
pub(crate) fn synthetic(model: &SyntheticModel, dtype: DType) -> Checkpoint {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.gguf");
    model.write_gguf(&path, dtype).expect("it is written");
    Checkpoint::open(&path).expect("it opens")
}

/// Logits of the last of `tokens`, computed in one step from an empty cache.
pub(crate) fn logits_of(backend: &mut dyn Backend, tokens: &[u32]) -> Vec<f32> {
    let pages: Vec<u32> = (0..backend.arena().pages() as u32).collect();
    let mut logits = Vec::new();
    let rows = SequenceRows { tokens, start: 0, pages: &pages, logits: LogitRows::Last };
    backend.forward(&[rows], &mut logits).expect("a step");
    logits
}

pub(crate) fn best(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    best.expect("a vocabulary") as u32
}

/// Root mean square of the difference over that of `exact`.
pub(crate) fn relative_error(found: &[f32], exact: &[f32]) -> f64 {
    assert_eq!(found.len(), exact.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = square(&mut found.iter().zip(exact).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    (difference / square(&mut exact.iter().map(|v| f64::from(*v)))).sqrt()
}
