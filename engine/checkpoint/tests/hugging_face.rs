//! `config.json` and its companions as the families write them, each on a model that matches it.
#![allow(clippy::expect_used, clippy::panic)] // how a test fails

use std::path::Path;

use serde_json::{Value, json};
use shoal_checkpoint::{Checkpoint, CheckpointError, DType, RopeScaling, SyntheticModel};
use tempfile::TempDir;

/// A preset whose `config.json` is edited by `edit`.
fn edited(
    model: &SyntheticModel,
    edit: impl FnOnce(&mut Value),
) -> (TempDir, Result<Checkpoint, CheckpointError>) {
    let directory = tempfile::tempdir().expect("temporary directory");
    model.write_safetensors(directory.path(), DType::BF16, 1).expect("writable");
    let path = directory.path().join("config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).expect("written")).expect("valid");
    edit(&mut config);
    std::fs::write(&path, config.to_string()).expect("writable");
    let opened = Checkpoint::open(directory.path());
    (directory, opened)
}

fn opened(model: &SyntheticModel, edit: impl FnOnce(&mut Value)) -> Checkpoint {
    edited(model, edit).1.expect("valid")
}

fn refused(model: &SyntheticModel, edit: impl FnOnce(&mut Value)) -> String {
    edited(model, edit).1.expect_err("this configuration must be refused").to_string()
}

fn write(directory: &Path, name: &str, content: &Value) {
    std::fs::write(directory.join(name), content.to_string()).expect("writable");
}

#[test]
fn rope_scaling_is_read_in_its_old_and_new_spelling() {
    let llama3 = SyntheticModel::llama3();
    let newer = opened(&llama3, |config| {
        let mut parameters = config["rope_scaling"].take();
        parameters["rope_theta"] = config["rope_theta"].take();
        config["rope_parameters"] = parameters;
    });
    assert_eq!(newer.config().rope, llama3.config.rope);

    let older = opened(&llama3, |config| config["rope_scaling"] = json!({ "type": "linear", "factor": 2 }));
    assert_eq!(older.config().rope.scaling, RopeScaling::Linear { factor: 2.0 });

    let default = opened(&llama3, |config| config["rope_scaling"] = json!({ "rope_type": "default" }));
    assert_eq!(default.config().rope.scaling, RopeScaling::None);
}

#[test]
fn yarn_takes_its_defaults_and_extends_the_context() {
    let model = opened(&SyntheticModel::qwen2(), |config| {
        config["rope_scaling"] = json!({ "type": "yarn", "factor": 4.0 });
        config["max_position_embeddings"] = json!(32_768);
    });
    let expected = RopeScaling::Yarn {
        factor: 4.0,
        original_context: 32_768,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: 0.1 * 4.0f32.ln() + 1.0,
    };
    assert_eq!(model.config().rope.scaling, expected);
    assert_eq!(model.config().max_context, 131_072);
}

#[test]
fn a_window_holds_only_where_the_family_says_so() {
    let window = |model: SyntheticModel, edit: fn(&mut Value)| opened(&model, edit).config().sliding_window;
    assert_eq!(window(SyntheticModel::mistral(), |_| ()), Some(8));
    assert_eq!(window(SyntheticModel::mistral(), |config| config["sliding_window"] = Value::Null), None);
    let qwen = SyntheticModel::qwen2;
    assert_eq!(window(qwen(), |config| config["sliding_window"] = json!(16)), None, "not asked for");
    let all: fn(&mut Value) = |config| {
        config["sliding_window"] = json!(16);
        config["use_sliding_window"] = json!(true);
        config["max_window_layers"] = json!(0);
    };
    assert_eq!(window(qwen(), all), Some(16));
    let some = refused(&qwen(), |config| {
        all(config);
        config["max_window_layers"] = json!(1);
    });
    assert!(some.contains("max_window_layers") && some.contains("all layers alike"), "{some}");
}

#[test]
fn end_tokens_come_from_both_files_in_either_form() {
    let (directory, _) = edited(&SyntheticModel::llama2(), |config| config["eos_token_id"] = json!(2));
    write(directory.path(), "generation_config.json", &json!({ "eos_token_id": [0, 2] }));
    let model = Checkpoint::open(directory.path()).expect("valid");
    assert_eq!(model.config().eos, [2, 0]);
    assert_eq!(model.vocabulary().eos(), [2, 0]);
}

#[test]
fn defaults_are_those_of_the_family() {
    let model = opened(&SyntheticModel::llama2(), |config| {
        let object = config.as_object_mut().expect("an object");
        for key in ["head_dim", "num_key_value_heads", "rope_theta", "rope_scaling", "tie_word_embeddings"] {
            object.remove(key);
        }
    });
    assert_eq!(*model.config(), SyntheticModel::llama2().config);
}

#[test]
fn what_the_decoder_lacks_is_refused_by_its_field() {
    let cases: [(&str, Value); 14] = [
        ("architectures", json!(["GPT2LMHeadModel"])),
        ("architectures", Value::Null),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("hidden_act", json!("gelu")),
        ("partial_rotary_factor", json!(0.5)),
        ("quantization_config", json!({ "quant_method": "fp8" })),
        ("rope_scaling", json!("yarn")),
        ("rope_type", json!("ignored")),
        ("hidden_size", json!(-64)),
        ("hidden_size", Value::Null),
        ("num_hidden_layers", json!("2")),
        ("eos_token_id", json!([1, "2"])),
        ("rms_norm_eps", json!("tiny")),
    ];
    for (field, value) in cases {
        let message = refused(&SyntheticModel::llama2(), |config| match field {
            "rope_type" => config["rope_scaling"] = json!({ "rope_type": "longrope" }),
            _ => config[field] = value,
        });
        assert!(message.contains(field), "{message:?} does not name {field}");
    }
}

#[test]
fn believable_bounds_are_enforced() {
    let cases: [(&str, Value, &str); 7] = [
        ("num_hidden_layers", json!(1e9), "number of layers"),
        ("num_key_value_heads", json!(3), "number of heads is 4"),
        ("head_dim", json!(15), "head size"),
        ("rope_theta", json!(0), "rope base"),
        ("eos_token_id", json!(288), "token ids below 288"),
        ("max_position_embeddings", json!(0), "context length"),
        ("hidden_size", json!(128), "tensor model.embed_tokens.weight is of shape [288, 64]"),
    ];
    for (field, value, place) in cases {
        let message = refused(&SyntheticModel::llama2(), |config| config[field] = value);
        assert!(message.contains(place), "{message:?} does not say {place:?}");
    }
}

#[test]
fn the_chat_template_is_found_in_each_of_its_places() {
    let (directory, _) = edited(&SyntheticModel::llama2(), |_| ());
    let template = || Checkpoint::open(directory.path()).expect("valid").chat_template().map(str::to_owned);
    let named = json!([{ "name": "tool_use", "template": "T" }, { "name": "default", "template": "D" }]);
    write(directory.path(), "tokenizer_config.json", &json!({ "chat_template": named }));
    assert_eq!(template().as_deref(), Some("D"));
    std::fs::write(directory.path().join("chat_template.jinja"), "J").expect("writable");
    assert_eq!(template().as_deref(), Some("J"));
    std::fs::remove_file(directory.path().join("chat_template.jinja")).expect("removable");
    write(directory.path(), "tokenizer_config.json", &json!({}));
    assert_eq!(template(), None);
}

#[test]
fn a_missing_file_is_named() {
    for file in ["config.json", "tokenizer.json"] {
        let (directory, _) = edited(&SyntheticModel::llama2(), |_| ());
        std::fs::remove_file(directory.path().join(file)).expect("removable");
        let message = Checkpoint::open(directory.path()).expect_err("incomplete").to_string();
        assert!(message.contains(file), "{message}");
    }
    let (directory, _) = edited(&SyntheticModel::llama2(), |_| ());
    std::fs::remove_file(directory.path().join("model.safetensors")).expect("removable");
    let message = Checkpoint::open(directory.path()).expect_err("incomplete").to_string();
    assert!(message.contains("*.safetensors is 0 weight files"), "{message}");
}

#[test]
fn sentencepiece_vocabularies_decode_to_bytes() {
    let (directory, _) = edited(&SyntheticModel::llama2(), |_| ());
    let tokenizer = json!({
        "added_tokens": [{ "id": 1, "content": "<s>", "special": true }],
        "decoder": { "type": "Sequence", "decoders": [{ "type": "ByteFallback" }, { "type": "Fuse" }] },
        "model": { "type": "BPE", "vocab": { "<unk>": 0, "<s>": 1, "<0x0A>": 2, "▁the": 3, "far away": 9999 } },
    });
    write(directory.path(), "tokenizer.json", &tokenizer);
    let vocabulary = Checkpoint::open(directory.path()).expect("valid").vocabulary();
    assert_eq!((vocabulary.bytes(2), vocabulary.bytes(3)), (&b"\n"[..], &b" the"[..]));
    assert!(vocabulary.is_special(1) && vocabulary.is_special(4), "bos, and an id without a token");
    assert_eq!(vocabulary.len(), 288, "ids that the model cannot produce are left out");
}
