//! Every storage format, fast against exact.

use shoal_checkpoint::{DType, SyntheticModel};

use crate::drive::{Setup, logits_of, relative_error, synthetic};

const PROMPT: [u32; 40] = {
    let mut tokens = [0; 40];
    let mut i = 0;
    while i < 40 {
        tokens[i] = (i * 37 + 5) as u32 % 280;
        i += 1;
    }
    tokens
};

fn error_of(dtype: DType) -> f64 {
    let checkpoint = synthetic(&SyntheticModel::wide(), dtype);
    let embedding = checkpoint.tensor("model.embed_tokens.weight").expect("it has one");
    assert_eq!(embedding.dtype, dtype, "the model stores what the test is about");
    let exact = logits_of(Setup::REFERENCE.load(&checkpoint).as_mut(), &PROMPT);
    let fast = logits_of(Setup::FAST.load(&checkpoint).as_mut(), &PROMPT);
    relative_error(&fast, &exact)
}

#[test]
fn float_formats_lose_only_what_f16_keys_and_values_lose() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let error = error_of(dtype);
        assert!(error < 2e-3, "{dtype:?}: relative error {error}");
    }
}

#[test]
fn quantized_formats_lose_what_8_bit_activations_lose() {
    use DType::{Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    for dtype in [Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4K, Q5K, Q6K] {
        let error = error_of(dtype);
        assert!(error < 3e-2, "{dtype:?}: relative error {error}");
        assert!(error > 1e-5, "{dtype:?}: {error} is too good to be the fast path");
    }
}
