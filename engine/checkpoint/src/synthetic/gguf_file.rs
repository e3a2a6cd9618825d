//! A synthetic model as a GGUF file, with everything that converters do to the weights of its architecture.

use std::f32::consts::TAU;
use std::path::Path;

use super::{SyntheticModel, text};
use crate::gguf::from_hugging_face;
use crate::rope_order::to_interleaved;
use crate::tokenizer::{GgufTokenizer, TokenType};
use crate::write::{GgufWriter, MetadataValue, WriteError};
use crate::{Architecture, DType, ModelConfig, RopeScaling};

pub(super) fn write(model: &SyntheticModel, path: &Path, dtype: DType) -> Result<(), WriteError> {
    let mut file = GgufWriter::default();
    put_config(&mut file, &model.config);
    file.key("general.name", MetadataValue::String(model.name.to_owned()));
    put_tokenizer(&mut file, text::tokenizer(model.config.vocabulary));
    let config = &model.config;
    if let Some(factors) = frequency_factors(config) {
        file.tensor("rope_freqs.weight", &[factors.len()], &factors, DType::F32);
    }
    for spec in config.tensors() {
        let mut elements = model.elements(&spec.name, &spec.shape);
        if prefix(config) == "llama" && is_turned(&spec.name) {
            elements = to_interleaved(&elements, config.head_dim, spec.shape[1]);
        }
        let dtype = stored_as(dtype, &spec.shape);
        file.tensor(&from_hugging_face(&spec.name), &spec.shape, &elements, dtype);
    }
    file.write(path)
}

fn is_turned(name: &str) -> bool {
    name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight")
}

fn stored_as(dtype: DType, shape: &[usize]) -> DType {
    match *shape {
        [_, row] if row.is_multiple_of(dtype.block().0) => dtype,
        [_, _] => DType::F16,
        _ => DType::F32,
    }
}

fn prefix(config: &ModelConfig) -> &'static str {
    match config.architecture {
        Architecture::Llama | Architecture::Mistral => "llama",
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
    }
}

fn put_config(file: &mut GgufWriter, config: &ModelConfig) {
    let prefix = prefix(config);
    file.key("general.architecture", MetadataValue::String(prefix.to_owned()));
    let sizes = [
        ("block_count", config.layers),
        ("embedding_length", config.hidden),
        ("feed_forward_length", config.ffn),
        ("context_length", config.max_context),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
    ];
    for (key, value) in
        sizes.into_iter().chain(config.sliding_window.map(|w| ("attention.sliding_window", w)))
    {
        file.key(&format!("{prefix}.{key}"), MetadataValue::U32(value as u32));
    }
    file.key(&format!("{prefix}.attention.layer_norm_rms_epsilon"), MetadataValue::F32(config.rms_eps));
    file.key(&format!("{prefix}.rope.freq_base"), MetadataValue::F32(config.rope.theta));
    put_scaling(file, prefix, &config.rope.scaling);
}

fn put_scaling(file: &mut GgufWriter, prefix: &str, scaling: &RopeScaling) {
    let (kind, factor) = match scaling {
        RopeScaling::Linear { factor } => ("linear", *factor),
        RopeScaling::Yarn { factor, .. } => ("yarn", *factor),
        // As a tensor, if at all.
        RopeScaling::None | RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => return,
    };
    file.key(&format!("{prefix}.rope.scaling.type"), MetadataValue::String(kind.to_owned()));
    file.key(&format!("{prefix}.rope.scaling.factor"), MetadataValue::F32(factor));
    if let RopeScaling::Yarn { original_context, beta_fast, beta_slow, .. } = scaling {
        let original = MetadataValue::U32(*original_context as u32);
        file.key(&format!("{prefix}.rope.scaling.original_context_length"), original);
        file.key(&format!("{prefix}.rope.scaling.yarn_beta_fast"), MetadataValue::F32(*beta_fast));
        file.key(&format!("{prefix}.rope.scaling.yarn_beta_slow"), MetadataValue::F32(*beta_slow));
    }
}

fn put_tokenizer(file: &mut GgufWriter, tokenizer: GgufTokenizer) {
    let types = tokenizer.token_types.iter().map(|kind| match kind {
        TokenType::Normal => 1,
        TokenType::Unknown => 2,
        TokenType::Control => 3,
        TokenType::UserDefined => 4,
        TokenType::Unused => 5,
        TokenType::Byte => 6,
    });
    let types = types.collect();
    file.key("tokenizer.ggml.model", MetadataValue::String(tokenizer.model));
    file.key("tokenizer.ggml.pre", MetadataValue::String(tokenizer.pre.unwrap_or_default()));
    file.key("tokenizer.ggml.tokens", MetadataValue::Strings(tokenizer.tokens));
    file.key("tokenizer.ggml.token_type", MetadataValue::I32s(types));
    file.key("tokenizer.ggml.merges", MetadataValue::Strings(tokenizer.merges));
    for (key, id) in [("bos", tokenizer.bos), ("eos", tokenizer.eos)] {
        if let Some(id) = id {
            file.key(&format!("tokenizer.ggml.{key}_token_id"), MetadataValue::U32(id));
        }
    }
    file.key("tokenizer.ggml.add_bos_token", MetadataValue::Bool(tokenizer.add_bos));
    file.key("tokenizer.chat_template", MetadataValue::String(text::CHAT_TEMPLATE.to_owned()));
}

/// What llama3 scaling divides each frequency by: nothing for short wavelengths, the whole factor for long
/// ones, and a blend between.
fn frequency_factors(config: &ModelConfig) -> Option<Vec<f32>> {
    let (factor, low, high, original) = match &config.rope.scaling {
        RopeScaling::Factors(factors) => return Some(factors.clone()),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            (*factor, *low_freq_factor, *high_freq_factor, *original_context as f32)
        }
        RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Yarn { .. } => return None,
    };
    let one = |i: usize| {
        let frequency = config.rope.theta.powf(-2.0 * i as f32 / config.head_dim as f32);
        let turns = original * frequency / TAU;
        let blend = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        1.0 / ((1.0 - blend) / factor + blend)
    };
    Some((0..config.head_dim / 2).map(one).collect())
}
