//! Greedy text of a real model, token by token, as llama.cpp writes it.

use shoal_checkpoint::Checkpoint;
use shoal_model::{Backend, Compute, KvGeometry, KvMemory, LoadOptions, LogitRows, SequenceRows, load};

/// A prompt and its greedy continuation by llama.cpp on SmolLM2-135M-Instruct, `Q4_1`.
struct Golden {
    prompt: &'static [u32],
    continuation: [u32; 16],
}

/// "The capital of France is" -> " Paris.\n\nThe United States has a population of approximately 311"
const CAPITAL: Golden = Golden {
    prompt: &[504, 3575, 282, 4649, 314],
    continuation: [7042, 30, 198, 198, 504, 1797, 1918, 553, 253, 2155, 282, 4723, 216, 35, 33, 33],
};

/// "Once upon a time" -> ", the city of Nova Haven was a thriving metropolis, with towering skyscrapers and"
const ONCE: Golden = Golden {
    prompt: &[6403, 1980, 253, 655],
    continuation: [
        28, 260, 2240, 282, 23324, 27108, 436, 253, 15114, 39228, 28, 351, 25854, 41658, 284, 14055,
    ],
};

/// The model's path, or `None` after saying what is missing.
fn model_path() -> Option<String> {
    let path = std::env::var("SHOAL_TEST_MODEL").ok();
    if path.is_none() {
        assert!(std::env::var_os("SHOAL_REQUIRE_MODEL").is_none(), "SHOAL_TEST_MODEL names no model file");
        eprintln!("skipped: SHOAL_TEST_MODEL names no model file");
    }
    path
}

fn open(path: &str, compute: Compute) -> Box<dyn Backend> {
    let checkpoint = Checkpoint::open(path).expect("a model");
    let options = LoadOptions {
        compute,
        threads: 1,
        kv: KvMemory::Pages(2),
        page_tokens: KvGeometry::PAGE_TOKENS,
        progress: &|_, _| {},
    };
    load(&checkpoint, &options).expect("it loads")
}

fn greedy(backend: &mut dyn Backend, prompt: &[u32], page: u32, count: usize) -> Vec<u32> {
    let (mut tokens, mut done, mut logits) = (prompt.to_vec(), 0, Vec::new());
    while tokens.len() < prompt.len() + count {
        let rows =
            SequenceRows { tokens: &tokens[done..], start: done, pages: &[page], logits: LogitRows::Last };
        backend.forward(&[rows], &mut logits).expect("a step");
        done = tokens.len();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary");
        tokens.push(best as u32);
    }
    tokens.split_off(prompt.len())
}

#[test]
fn the_fast_backend_writes_what_llama_cpp_writes() {
    let Some(path) = model_path() else { return };
    let mut backend = open(&path, Compute::Fast);
    for (page, golden) in [CAPITAL, ONCE].iter().enumerate() {
        let text = greedy(backend.as_mut(), golden.prompt, page as u32, golden.continuation.len());
        assert_eq!(text, golden.continuation);
    }
}

/// Without rounding, "The" of the first text is followed by another token with a lead of 0.2: llama.cpp's
/// choice there is its own rounding. So the oracle is asked how near it finds each golden token.
#[test]
fn the_reference_backend_finds_the_golden_text_best_or_nearly_so() {
    const NEAR: f32 = 0.5;
    let Some(path) = model_path() else { return };
    let mut backend = open(&path, Compute::Reference);
    for golden in [CAPITAL, ONCE] {
        let tokens = [golden.prompt, &golden.continuation].concat();
        let (mut done, mut logits, mut best_of_all) = (0, Vec::new(), 0);
        for end in golden.prompt.len()..tokens.len() {
            let tokens = &tokens[..=end];
            let rows = SequenceRows {
                tokens: &tokens[done..end],
                start: done,
                pages: &[0],
                logits: LogitRows::Last,
            };
            backend.forward(&[rows], &mut logits).expect("a step");
            done = end;
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let chosen = logits[tokens[end] as usize];
            assert!(best - chosen <= NEAR, "token {end}: {chosen} against {best}");
            best_of_all += usize::from(best <= chosen);
        }
        assert!(best_of_all >= 15, "{best_of_all} of 16 are the best");
    }
}
