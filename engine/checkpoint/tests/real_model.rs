//! The downloaded test model, opened as users open theirs.
#![allow(clippy::expect_used, clippy::panic)] // how a test fails

use std::path::PathBuf;

use shoal_checkpoint::{Checkpoint, DType, Rope, RopeStyle, TokenizerSource, export_safetensors};

/// `None` after saying what is missing, unless the run insists on the model.
fn test_model() -> Option<PathBuf> {
    let path = std::env::var_os("SHOAL_TEST_MODEL").map(PathBuf::from);
    if path.is_none() {
        assert!(
            std::env::var_os("SHOAL_REQUIRE_MODEL").is_none_or(|v| v != "1"),
            "SHOAL_TEST_MODEL is not set"
        );
        eprintln!("skipped: SHOAL_TEST_MODEL is not set");
    }
    path
}

#[test]
fn smollm2_opens_with_its_published_shape_and_vocabulary() {
    let Some(path) = test_model() else { return };
    let model = Checkpoint::open(path).expect("the test model is valid");
    let config = model.config();
    assert_eq!((config.layers, config.hidden, config.heads, config.kv_heads), (30, 576, 9, 3));
    assert_eq!(
        (config.head_dim, config.ffn, config.vocabulary, config.max_context),
        (64, 1536, 49_152, 8192)
    );
    assert!(config.tied_head && !config.qkv_bias && !config.qk_norm);
    assert_eq!((config.rope.theta, config.rope.style), (1e5, RopeStyle::Interleaved));
    assert_eq!((config.bos, config.eos.as_slice()), (Some(1), &[2, 0][..]));
    assert_eq!(model.tensor_names().count(), 272);
    let embedding = model.tensor("model.embed_tokens.weight").expect("present");
    assert_eq!((embedding.dtype, embedding.shape.as_slice()), (DType::Q8_0, &[49_152, 576][..]));
    assert_eq!(model.tensor("model.layers.29.mlp.down_proj.weight").expect("present").dtype, DType::Q4_1);
    assert!(model.chat_template().is_some_and(|template| template.contains("<|im_start|>")));

    let vocabulary = model.vocabulary();
    let text: Vec<u8> =
        [19556, 216, 33, 34, 35, 36, 905].iter().flat_map(|id| vocabulary.bytes(*id).to_vec()).collect();
    assert_eq!(String::from_utf8_lossy(&text), "Hello 1234 world");
    assert!(vocabulary.is_special(2) && !vocabulary.is_special(905));
    assert_eq!(vocabulary.bytes(2), b"<|im_end|>");
    let TokenizerSource::Gguf(tokenizer) = model.tokenizer() else { panic!("a GGUF tokenizer") };
    assert_eq!((tokenizer.model.as_str(), tokenizer.pre.as_deref()), ("gpt2", Some("smollm")));
    assert_eq!((tokenizer.tokens.len(), tokenizer.merges.len()), (49_152, 48_900));
}

/// No safetensors model of this family is small enough to download for a test, so one is made.
#[test]
fn smollm2_exported_to_safetensors_is_the_same_model() {
    let Some(path) = test_model() else { return };
    let original = Checkpoint::open(path).expect("the test model is valid");
    let directory = tempfile::tempdir().expect("temporary directory");
    export_safetensors(&original, directory.path(), DType::BF16).expect("expressible");
    let exported = Checkpoint::open(directory.path()).expect("what was written is valid");

    let mut expected = original.config().clone();
    expected.rope = Rope { style: RopeStyle::Half, ..expected.rope };
    assert_eq!(*exported.config(), expected);
    assert_eq!(exported.chat_template(), original.chat_template());
    let (ours, theirs) = (exported.vocabulary(), original.vocabulary());
    for id in 0..theirs.len() as u32 {
        assert_eq!(
            (ours.bytes(id), ours.is_special(id)),
            (theirs.bytes(id), theirs.is_special(id)),
            "token {id}"
        );
    }

    let elements = |model: &Checkpoint, name: &str| {
        model.tensor(name).expect("present").to_f32().expect("checked when opened")
    };
    let down = "model.layers.3.mlp.down_proj.weight";
    for (ours, theirs) in elements(&exported, down).iter().zip(elements(&original, down)) {
        assert!((ours - theirs).abs() <= theirs.abs() / 256.0, "bf16 keeps eight bits: {ours}, {theirs}");
    }
    // Row 1 of a head lies half a head away again.
    let k = "model.layers.3.self_attn.k_proj.weight";
    let (ours, theirs) = (elements(&exported, k), elements(&original, k));
    assert!((ours[32 * 576] - theirs[576]).abs() <= theirs[576].abs() / 256.0);
}
