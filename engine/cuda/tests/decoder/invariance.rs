//! What is computed beside a sequence, in which pieces and in which pages, changes rounding at most.

use shoal_cuda::CudaModel;
use shoal_model::{LogitRows, SequenceRows};

use crate::drive::{device, model, relative_error, safetensors, tokens, whole};

/// Other kernels and other orders of addition, the same formula. Each way keeps its own distance to the oracle,
/// so two of them may lie this far apart.
const SAME: f64 = 0.03;

fn chunked(model: &mut CudaModel, tokens: &[u32], pages: &[u32], chunks: &[usize]) -> Vec<f32> {
    let mut logits = Vec::new();
    let mut start = 0;
    for chunk in chunks.iter().cycle() {
        let end = tokens.len().min(start + chunk);
        let rows = SequenceRows { tokens: &tokens[start..end], start, pages, logits: LogitRows::Last };
        model.forward(&[rows], &mut logits).expect("a step");
        start = end;
        if start == tokens.len() {
            return logits;
        }
    }
    unreachable!("chunks are not empty")
}

#[test]
fn chunked_prefill_is_whole_prefill() {
    for name in ["llama3", "mistral", "qwen3", "smollm"] {
        let Some(mut model) = device(&safetensors(&model(name))) else { return };
        let (tokens, pages) = (tokens(2, 200), [9, 2, 4, 8]);
        let exact = whole(&mut model, &tokens, &[0, 1, 2, 3]);
        for chunks in [&[64][..], &[33, 7], &[1], &[150, 50], &[63, 1, 65]] {
            let error = relative_error(&chunked(&mut model, &tokens, &pages, chunks), &exact);
            assert!(error < SAME, "{name} in chunks of {chunks:?}: {error:.4}");
        }
    }
}

#[test]
fn the_same_step_twice_has_the_same_bits() {
    let Some(mut model) = device(&safetensors(&model("wide"))) else { return };
    let tokens = tokens(3, 130);
    let first = whole(&mut model, &tokens, &[1, 2, 3]);
    let again = whole(&mut model, &tokens, &[6, 5, 4]);
    assert!(first.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "pages do not matter");
}

/// Prompts of several lengths, one of one token, some without logits, beside each other and beside decode.
#[test]
fn sequences_do_not_notice_their_company() {
    let Some(mut model) = device(&safetensors(&model("qwen2"))) else { return };
    let lengths = [70, 1, 128, 33, 1, 5];
    let prompts: Vec<Vec<u32>> = lengths.iter().enumerate().map(|(s, len)| tokens(s, *len)).collect();
    let pages: Vec<Vec<u32>> = (0..lengths.len() as u32).map(|s| vec![s * 3, s * 3 + 1, s * 3 + 2]).collect();
    let alone: Vec<Vec<f32>> = prompts.iter().zip(&pages).map(|(t, p)| whole(&mut model, t, p)).collect();
    let batch: Vec<_> = (0..lengths.len())
        .map(|s| SequenceRows {
            tokens: &prompts[s],
            start: 0,
            pages: &pages[s],
            logits: if s == 3 { LogitRows::None } else { LogitRows::Last },
        })
        .collect();
    let mut logits = Vec::new();
    model.forward(&batch, &mut logits).expect("a step");
    let width = model.config().vocabulary;
    let wanted: Vec<usize> = (0..lengths.len()).filter(|s| *s != 3).collect();
    assert_eq!(logits.len(), wanted.len() * width, "a row for each that asked");
    for (row, s) in logits.chunks_exact(width).zip(wanted) {
        let error = relative_error(row, &alone[s]);
        assert!(error < SAME, "sequence {s} of {} tokens: {error:.4}", lengths[s]);
    }
}
