//! The whole way from requests to ids and back, on the test model.

use super::*;

/// The model named by `SHOAL_TEST_MODEL`; without it a test says so and passes, or fails where it must run.
fn model() -> Option<Arc<TextModel>> {
    static MODEL: std::sync::OnceLock<Option<Arc<TextModel>>> = std::sync::OnceLock::new();
    MODEL
        .get_or_init(|| {
            let Some(path) = std::env::var_os("SHOAL_TEST_MODEL") else {
                assert!(
                    std::env::var_os("SHOAL_REQUIRE_MODEL").is_none_or(|v| v != "1"),
                    "SHOAL_TEST_MODEL must name a model file"
                );
                eprintln!("skipped: SHOAL_TEST_MODEL does not name a model file");
                return None;
            };
            Some(Arc::new(TextModel::open(Path::new(&path), "smollm2", TextLimits::default()).unwrap()))
        })
        .clone()
}

#[test]
fn digits_of_smollm_are_tokens_of_their_own() {
    let Some(model) = model() else { return };
    assert_eq!(model.encode("Hello 1234 world", true).unwrap(), [19556, 216, 33, 34, 35, 36, 905]);
}
