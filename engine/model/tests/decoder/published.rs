//! Logits and greedy tokens that an independent implementation in numpy computed for the synthetic models.

use std::path::Path;

use shoal_checkpoint::{DType, SyntheticModel};
use shoal_model::Backend;

use crate::drive::{Setup, best, logits_of, relative_error, synthetic};

struct Published {
    prompt: Vec<u32>,
    logits: Vec<f32>,
    greedy: Vec<u32>,
}

fn published(name: &str) -> Published {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../checkpoint/reference/logits");
    let text = std::fs::read_to_string(directory.join(format!("{name}.json"))).expect("a reference file");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let numbers = |key: &str| -> Vec<f64> {
        json[key].as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
    };
    Published {
        prompt: numbers("prompt").into_iter().map(|v| v as u32).collect(),
        logits: numbers("logits").into_iter().map(|v| v as f32).collect(),
        greedy: numbers("greedy").into_iter().map(|v| v as u32).collect(),
    }
}

fn greedy(backend: &mut dyn Backend, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        let next = best(&logits_of(backend, &tokens));
        tokens.push(next);
    }
    tokens.split_off(prompt.len())
}

#[test]
fn the_reference_backend_computes_the_published_logits_of_every_family() {
    for model in SyntheticModel::presets() {
        let published = published(model.name);
        let mut backend = Setup::REFERENCE.load(&synthetic(&model, DType::F32));
        let logits = logits_of(backend.as_mut(), &published.prompt);
        let worst = logits.iter().zip(&published.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-4, "{}: off by {worst}", model.name);
        assert_eq!(greedy(backend.as_mut(), &published.prompt, 16), published.greedy, "{}", model.name);
    }
}

#[test]
fn the_fast_backend_is_as_near_as_f16_keys_and_values_allow() {
    for model in SyntheticModel::presets() {
        let published = published(model.name);
        let mut backend = Setup::FAST.load(&synthetic(&model, DType::F32));
        let error = relative_error(&logits_of(backend.as_mut(), &published.prompt), &published.logits);
        assert!(error < 2e-3, "{}: relative error {error}", model.name);
    }
}
