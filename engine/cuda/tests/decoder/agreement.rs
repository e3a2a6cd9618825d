//! Logits and greedy tokens of every variant.

use shoal_checkpoint::{Checkpoint, DType};
use shoal_cuda::CudaModel;
use shoal_model::{Backend, LogitRows, SequenceRows};

use crate::drive::{
    BOUND, best, device, gap, gguf, models, oracle, relative_error, safetensors, tokens, whole,
};

const PROMPT: usize = 150;
const STEPS: usize = 24;
/// Tokens that the oracle puts this close together (see [`gap`]) may change places.
const NEAR_TIE: f64 = 2.0 * BOUND;

/// A prompt and the steps after it, the oracle's tokens fed to both.
fn compare(name: &str, model: &mut CudaModel, oracle: &mut dyn Backend) {
    let pages: Vec<u32> = vec![5, 3, 7, 1];
    let mut history = tokens(1, PROMPT);
    let mut exact = Vec::new();
    let rows = SequenceRows { tokens: &history, start: 0, pages: &pages, logits: LogitRows::Last };
    oracle.forward(&[rows], &mut exact).expect("a step");
    let mut found = whole(model, &history, &pages);
    let (mut worst, mut other) = (0.0_f64, 0);
    for step in 0..STEPS {
        let error = relative_error(&found, &exact);
        worst = worst.max(error);
        assert!(error < BOUND, "{name}, step {step}: logits differ by {error:.4}");
        let (chosen, token) = (best(&found), best(&exact));
        let behind = gap(&exact, chosen);
        assert!(behind < NEAR_TIE, "{name}, step {step}: {chosen} instead of {token}, {behind:.4} behind");
        other += usize::from(chosen != token);
        history.push(token);
        let last = [token];
        let rows =
            SequenceRows { tokens: &last, start: history.len() - 1, pages: &pages, logits: LogitRows::Last };
        oracle.forward(&[rows], &mut exact).expect("a step");
        model.forward(&[rows], &mut found).expect("a step");
    }
    println!(
        "{name}: logits within {worst:.2e}; {other} of {STEPS} tokens were near ties that fell the other way"
    );
}

fn check(name: &str, checkpoint: &Checkpoint) {
    let Some(mut model) = device(checkpoint) else { return };
    compare(name, &mut model, oracle(checkpoint).as_mut());
}

#[test]
fn every_variant_from_safetensors_agrees_with_the_oracle() {
    for model in models() {
        check(model.name, &safetensors(&model));
    }
}

#[test]
fn gguf_files_with_their_own_rope_order_agree_with_the_oracle() {
    for model in models() {
        check(model.name, &gguf(&model, DType::F16));
    }
}

#[test]
fn quantized_weights_are_widened() {
    for dtype in [DType::Q8_0, DType::Q4_1, DType::Q6K] {
        check(&format!("wide {dtype:?}"), &gguf(&crate::drive::model("wide"), dtype));
    }
}
