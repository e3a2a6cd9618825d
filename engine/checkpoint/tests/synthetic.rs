//! Synthetic models, written and opened again in both containers.
#![allow(clippy::expect_used, clippy::panic)] // how a test fails

use std::path::Path;

use shoal_checkpoint::{
    Architecture, Checkpoint, DType, ModelConfig, Rope, RopeScaling, RopeStyle, SyntheticModel,
    TokenizerSource,
};

fn safetensors(model: &SyntheticModel, directory: &Path, dtype: DType, shards: usize) -> Checkpoint {
    model.write_safetensors(directory, dtype, shards).expect("writable");
    Checkpoint::open(directory).expect("what was written is valid")
}

fn gguf(model: &SyntheticModel, directory: &Path, dtype: DType) -> Checkpoint {
    let path = directory.join(format!("{}.{dtype:?}.gguf", model.name));
    model.write_gguf(&path, dtype).expect("writable");
    Checkpoint::open(&path).expect("what was written is valid")
}

fn elements(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    checkpoint.tensor(name).expect("present").to_f32().expect("consistent")
}

#[test]
fn every_preset_survives_a_safetensors_directory() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for model in SyntheticModel::presets() {
        let opened = safetensors(&model, &directory.path().join(model.name), DType::BF16, 1);
        assert_eq!(*opened.config(), model.config, "{}", model.name);
        for spec in model.config.tensors() {
            assert_eq!(
                elements(&opened, &spec.name),
                model.elements(&spec.name, &spec.shape),
                "{}",
                spec.name
            );
        }
        assert!(opened.chat_template().is_some_and(|template| template.contains("<|im_start|>")));
    }
}

#[test]
fn shards_and_wider_types_hold_the_same_numbers() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let model = SyntheticModel::qwen2();
    let one = safetensors(&model, &directory.path().join("one"), DType::BF16, 1);
    let sharded = safetensors(&model, &directory.path().join("sharded"), DType::F32, 3);
    assert!(directory.path().join("sharded/model-00003-of-00003.safetensors").exists());
    assert_eq!(one.tensor_names().collect::<Vec<_>>(), sharded.tensor_names().collect::<Vec<_>>());
    for name in one.tensor_names() {
        assert_eq!(elements(&one, name), elements(&sharded, name), "{name}");
    }
}

/// What a GGUF file says differently.
fn as_gguf(config: &ModelConfig) -> ModelConfig {
    let llama = matches!(config.architecture, Architecture::Llama | Architecture::Mistral);
    ModelConfig {
        architecture: if llama { Architecture::Llama } else { config.architecture },
        rope: Rope {
            style: if llama { RopeStyle::Interleaved } else { RopeStyle::Half },
            ..config.rope.clone()
        },
        eos: vec![2, 0],
        ..config.clone()
    }
}

#[test]
fn every_preset_survives_a_gguf_file() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for model in SyntheticModel::presets() {
        let opened = gguf(&model, directory.path(), DType::BF16);
        let mut expected = as_gguf(&model.config);
        if let RopeScaling::Factors(factors) = &opened.config().rope.scaling {
            assert_eq!(model.name, "llama3");
            // Short wavelengths keep their frequency, long ones are divided by the factor.
            assert_eq!((factors[0], factors[7]), (1.0, 8.0));
            assert!(factors.is_sorted() && factors[1] > 1.0 && factors[1] < 8.0);
            expected.rope.scaling = opened.config().rope.scaling.clone();
        }
        assert_eq!(*opened.config(), expected, "{}", model.name);
        for name in ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight", "model.norm.weight"]
        {
            let shape = opened.tensor(name).expect("present").shape;
            assert_eq!(elements(&opened, name), model.elements(name, &shape), "{} {name}", model.name);
        }
    }
}

#[test]
fn both_containers_spell_tokens_the_same() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let model = SyntheticModel::llama3();
    let json = safetensors(&model, &directory.path().join("json"), DType::BF16, 1).vocabulary();
    let opened = gguf(&model, directory.path(), DType::F32);
    let ggml = opened.vocabulary();
    for id in 0..model.config.vocabulary as u32 {
        assert_eq!(
            (json.bytes(id), json.is_special(id)),
            (ggml.bytes(id), ggml.is_special(id)),
            "token {id}"
        );
    }
    assert_eq!(
        (json.bytes(2), json.bytes(3 + 10), json.bytes(265)),
        (&b"<|im_end|>"[..], &b"\n"[..], &b" the"[..])
    );
    let TokenizerSource::Gguf(tokenizer) = opened.tokenizer() else { panic!("a GGUF tokenizer") };
    assert_eq!((tokenizer.pre.as_deref(), tokenizer.merges.len()), (Some("gpt-2"), 29));
}

/// Largest error of a block format relative to the largest element, which is the spread of the matrix: half
/// a step of the coarsest scale, and what is lost by rounding the scales themselves.
fn tolerance(dtype: DType) -> f32 {
    match dtype {
        DType::F32 | DType::BF16 => 0.0,
        DType::F16 => 1e-4,
        DType::Q8_0 => 0.005,
        DType::Q6K => 0.05,
        DType::Q5_0 | DType::Q5_1 | DType::Q5K => 0.07,
        DType::Q4_0 | DType::Q4_1 | DType::Q4K => 0.14,
    }
}

#[test]
fn every_block_format_keeps_the_weights_within_its_step() {
    use DType::{BF16, F16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let directory = tempfile::tempdir().expect("temporary directory");
    let model = SyntheticModel::wide();
    let name = "model.layers.1.mlp.down_proj.weight";
    let exact = model.elements(name, &[256, 512]);
    let largest = exact.iter().fold(0.0f32, |most, element| most.max(element.abs()));
    for dtype in [F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4K, Q5K, Q6K] {
        let opened = gguf(&model, directory.path(), dtype);
        assert_eq!(opened.tensor(name).expect("present").dtype, dtype);
        let stored = elements(&opened, name);
        let worst = exact.iter().zip(&stored).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst <= tolerance(dtype) * largest, "{dtype:?}: error {} of the largest", worst / largest);
    }
}

#[test]
fn the_digest_follows_the_content_and_nothing_else() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let model = SyntheticModel::smollm();
    let digest = |model: &SyntheticModel, place: &str| {
        safetensors(model, &directory.path().join(place), DType::BF16, 1).digest()
    };
    let first = digest(&model, "first");
    assert_eq!(first.len(), 64);
    assert_eq!(first, digest(&model, "second"));
    assert_ne!(first, digest(&SyntheticModel { seed: 99, ..model.clone() }, "another seed"));
    let mut longer = model;
    longer.config.rope.theta = 20_000.0;
    assert_ne!(first, digest(&longer, "another rope"), "the configuration decides the numbers too");
}
