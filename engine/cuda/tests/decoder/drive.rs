//! Synthetic models of shapes that the kernels run, and how two backends are compared.

use shoal_checkpoint::{Checkpoint, DType, ModelConfig, SyntheticModel};
use shoal_cuda::{CudaModel, CudaOptions, LoadError};
use shoal_model::{Backend, Compute, KvMemory, LoadOptions, LogitRows, SequenceRows, load};

/// Root mean square of the difference of logits over that of the oracle's: rounding to bf16 after each of
/// a few layers gives less than this.
pub(crate) const BOUND: f64 = 0.03;

pub(crate) const PAGES: usize = 64;

/// Every preset with heads of 64 (of 128 for one), so that each variant meets the device's kernels.
pub(crate) fn models() -> Vec<SyntheticModel> {
    let widen = |model: SyntheticModel| {
        let head_dim = if model.name == "qwen3" { 128 } else { 64 };
        let config = ModelConfig { hidden: 256, ffn: 512, head_dim, ..model.config };
        SyntheticModel { config, ..model }
    };
    SyntheticModel::presets().into_iter().map(widen).collect()
}

pub(crate) fn model(name: &str) -> SyntheticModel {
    models().into_iter().find(|model| model.name == name).expect("a preset")
}

pub(crate) fn safetensors(model: &SyntheticModel) -> Checkpoint {
    let directory = tempfile::tempdir().expect("a directory");
    model.write_safetensors(directory.path(), DType::BF16, 1).expect("it is written");
    Checkpoint::open(directory.path()).expect("it opens")
}

pub(crate) fn gguf(model: &SyntheticModel, dtype: DType) -> Checkpoint {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.gguf");
    model.write_gguf(&path, dtype).expect("it is written");
    Checkpoint::open(&path).expect("it opens")
}

/// On the device, or `None` after saying what was missing.
pub(crate) fn device(checkpoint: &Checkpoint) -> Option<CudaModel> {
    let options = CudaOptions {
        kv: KvMemory::Pages(PAGES),
        max_tokens: 1024,
        max_sequences: 32,
        max_context: 1024,
        ..CudaOptions::default()
    };
    match CudaModel::load(checkpoint, &options) {
        Ok(model) => Some(model),
        Err(LoadError::Open(lack)) if std::env::var_os("SHOAL_REQUIRE_GPU").is_none_or(|v| v != "1") => {
            eprintln!("skipped: {lack}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn oracle(checkpoint: &Checkpoint) -> Box<dyn Backend> {
    let options = LoadOptions {
        compute: Compute::Reference,
        threads: 1,
        kv: KvMemory::Pages(PAGES),
        page_tokens: 64,
        progress: &|_, _| {},
    };
    load(checkpoint, &options).expect("it loads")
}

/// Repeatable tokens of a synthetic vocabulary.
pub(crate) fn tokens(sequence: usize, len: usize) -> Vec<u32> {
    (0..len).map(|p| ((sequence * 101 + p * 53 + p * p * 7) % 288) as u32).collect()
}

/// Logits of the last token, all tokens in one step.
pub(crate) fn whole(model: &mut CudaModel, tokens: &[u32], pages: &[u32]) -> Vec<f32> {
    let mut logits = Vec::new();
    let rows = SequenceRows { tokens, start: 0, pages, logits: LogitRows::Last };
    model.forward(&[rows], &mut logits).expect("a step");
    logits
}

pub(crate) fn relative_error(found: &[f32], exact: &[f32]) -> f64 {
    assert_eq!(found.len(), exact.len());
    assert!(found.iter().all(|x| x.is_finite()), "a logit is not a number");
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = square(&mut found.iter().zip(exact).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    (difference / square(&mut exact.iter().map(|v| f64::from(*v)))).sqrt()
}

pub(crate) fn best(logits: &[f32]) -> u32 {
    (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary") as u32
}

/// How far the oracle puts `token` behind its own best, over the root mean square of its logits.
pub(crate) fn gap(exact: &[f32], token: u32) -> f64 {
    let size = (exact.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / exact.len() as f64).sqrt();
    f64::from(exact[best(exact) as usize] - exact[token as usize]) / size
}
