//! What independent scripts computed, against what this crate computes. Both scripts and their output lie in
//! `reference/`.
#![allow(clippy::expect_used, clippy::panic)] // how a test fails

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use shoal_checkpoint::{DType, SyntheticModel, TensorView};

fn reference<T: for<'de> Deserialize<'de>>(file: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference").join(file);
    let text = std::fs::read_to_string(&path).expect("the reference is checked in");
    serde_json::from_str(&text).expect("the reference is valid")
}

#[derive(Deserialize)]
struct Blocks {
    /// Hexadecimal.
    bytes: String,
    elements: Vec<f32>,
}

fn from_hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn every_storage_format_decodes_to_the_reference() {
    use DType::{BF16, F16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let reference: BTreeMap<String, Blocks> = reference("blocks.json");
    for dtype in [F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4K, Q5K, Q6K] {
        let blocks = &reference[&format!("{dtype:?}")];
        let bytes = from_hex(&blocks.bytes);
        let view = TensorView { name: "blocks", dtype, shape: vec![blocks.elements.len()], bytes: &bytes };
        let elements = view.to_f32().expect("whole blocks");
        assert_eq!(elements.len(), blocks.elements.len(), "{dtype:?}");
        for (i, (ours, theirs)) in elements.iter().zip(&blocks.elements).enumerate() {
            // Differences of two products lose up to the size of the products.
            let tolerance = 1e-6 * theirs.abs().max(100.0);
            assert!((ours - theirs).abs() <= tolerance, "{dtype:?} element {i}: {ours}, reference {theirs}");
        }
    }
}

#[test]
fn a_view_whose_bytes_do_not_fit_its_shape_is_refused() {
    let view = TensorView { name: "short", dtype: DType::Q4_0, shape: vec![2, 32], bytes: &[0; 35] };
    let error = view.to_f32().expect_err("36 bytes are needed").to_string();
    assert!(error.contains("short") && error.contains("35 bytes"), "{error}");
}

#[derive(Deserialize)]
struct Reference {
    prompt: Vec<u32>,
    logits: Vec<f32>,
    greedy: Vec<u32>,
    elements: BTreeMap<String, Vec<f32>>,
}

#[test]
fn presets_are_the_models_whose_logits_are_checked_in() {
    for model in SyntheticModel::presets() {
        let reference: Reference = reference(&format!("logits/{}.json", model.name));
        assert_eq!((reference.prompt.len(), reference.greedy.len()), (70, 16), "{}", model.name);
        assert_eq!(reference.logits.len(), model.config.vocabulary, "{}", model.name);
        let specs = model.config.tensors();
        assert_eq!(specs.len(), reference.elements.len(), "{}", model.name);
        for spec in specs {
            let elements = model.elements(&spec.name, &spec.shape);
            assert_eq!(elements[..4], reference.elements[&spec.name], "{} {}", model.name, spec.name);
        }
    }
}
