use shoal_checkpoint::{ModelConfig, SyntheticModel};
use shoal_cuda::{CudaModel, CudaOptions, LoadError};
use shoal_kernels::ErrorClass;
use shoal_model::{KvMemory, LogitRows, SequenceRows};

use crate::drive::{device, model, safetensors};

/// Told without a device: a model that no kernel runs is no matter of memory or drivers.
#[test]
fn a_head_size_without_kernels_is_named() {
    let config = SyntheticModel::llama3().config;
    let error = CudaModel::with_dummy_weights(&config, &CudaOptions::default()).expect_err("16 is too small");
    assert_eq!(error.to_string(), "the GPU cannot run a model whose head size is 16; allowed: 64 and 128");
    assert_eq!(error.class(), ErrorClass::Invalid);
}

#[test]
fn heads_that_do_not_share_evenly_are_named() {
    for kv_heads in [0, 3] {
        let config = ModelConfig { heads: 4, kv_heads, ..model("wide").config };
        let error = CudaModel::with_dummy_weights(&config, &CudaOptions::default()).expect_err("uneven");
        assert!(error.to_string().contains(&format!("number of kv heads is {kv_heads};")), "{error}");
    }
}

#[test]
fn absurd_options_are_named() {
    let options = CudaOptions { max_sequences: 0, ..CudaOptions::default() };
    let error = CudaModel::with_dummy_weights(&model("wide").config, &options).expect_err("no sequences");
    assert!(error.to_string().contains("max_sequences is 0"), "{error}");
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let options = CudaOptions { device: 4095, ..CudaOptions::default() };
    let error = CudaModel::with_dummy_weights(&model("wide").config, &options).expect_err("no such device");
    assert!(matches!(error, LoadError::Open(_)), "{error}");
    assert_eq!(error.class(), ErrorClass::Fatal);
}

#[test]
fn more_than_the_device_holds_is_refused_with_what_fits() {
    let Some(_) = device(&safetensors(&model("wide"))) else { return };
    let huge = ModelConfig { hidden: 65536, layers: 200, ffn: 262_144, ..model("wide").config };
    let error = CudaModel::with_dummy_weights(&huge, &CudaOptions::default()).expect_err("terabytes");
    assert!(error.to_string().contains("GiB are missing"), "{error}");
    let options = CudaOptions { kv: KvMemory::Pages(100_000_000), ..CudaOptions::default() };
    let error = CudaModel::with_dummy_weights(&model("wide").config, &options).expect_err("too many pages");
    assert!(error.to_string().contains("pages") && error.to_string().contains("fit"), "{error}");
}

#[test]
fn a_refused_step_leaves_the_model_as_it_was() {
    let Some(mut model) = device(&safetensors(&model("wide"))) else { return };
    let mut logits = Vec::new();
    let good = SequenceRows { tokens: &[1, 2, 3], start: 0, pages: &[0], logits: LogitRows::Last };
    model.forward(&[good], &mut logits).expect("a step");
    let before = logits.clone();
    for bad in [
        SequenceRows { tokens: &[], ..good },
        SequenceRows { tokens: &[288], ..good },
        SequenceRows { pages: &[64], ..good },
        SequenceRows { start: 64, ..good },
        SequenceRows { start: usize::MAX, ..good },
    ] {
        let error = model.forward(&[bad], &mut logits).expect_err("refused");
        assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
    }
    model.forward(&[good], &mut logits).expect("a step");
    assert_eq!(logits, before);
    model.forward(&[], &mut logits).expect("an empty step");
    assert!(logits.is_empty());
}

#[test]
fn a_model_may_move_to_another_thread() {
    fn sendable<T: Send>() {}
    sendable::<CudaModel>();
}
