//! The model file that the tests run on.

use std::path::PathBuf;

use anyhow::{Result, ensure};

/// Greedy continuations of SmolLM2-135M-Instruct `Q4_1`, as an independent implementation produces them from
/// the same file; 16 tokens end inside each.
pub const GOLDEN: [(&str, &str); 2] = [
    (
        "The capital of France is",
        " Paris.\n\nThe United States has a population of approximately 311 million people.\n\nThe United States",
    ),
    (
        "Once upon a time",
        ", the city of Nova Haven was a thriving metropolis, with towering skyscrapers and bustling streets. \
         But as the years went by",
    ),
];

/// The file named by `SHOAL_TEST_MODEL`. Without it a test is skipped, and says so; with
/// `SHOAL_REQUIRE_MODEL=1` it fails instead.
///
/// # Errors
/// When the model is required and missing.
pub fn find() -> Result<Option<PathBuf>> {
    let path = std::env::var_os("SHOAL_TEST_MODEL").map(PathBuf::from).filter(|path| path.exists());
    if path.is_none() {
        let lacked = "SHOAL_TEST_MODEL does not name SmolLM2-135M-Instruct.Q4_1.gguf; \
                      scripts/model.sh fetches it and prints its path";
        ensure!(std::env::var_os("SHOAL_REQUIRE_MODEL").is_none_or(|value| value != "1"), lacked);
        eprintln!("skipped: {lacked}");
    }
    Ok(path)
}

/// `length` token ids that look like nothing in particular, the same for the same `seed`.
pub fn prompt(seed: u32, length: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let next = move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Below the vocabulary of 49,152, above the control tokens.
        1000 + (state >> 8) % 40_000
    };
    (0..length).map(next).collect()
}
