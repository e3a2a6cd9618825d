//! `config.json` from a configuration: the inverse of reading one.

use serde_json::{Map, Value, json};

use super::WriteError;
use crate::DType;
use crate::config::{Architecture, ModelConfig, RopeScaling};

/// `dtype` is the one that the weights are written in.
pub(crate) fn config_json(config: &ModelConfig, dtype: DType) -> Result<Value, WriteError> {
    let torch_dtype = match dtype {
        DType::F32 => "float32",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        other => return Err(WriteError::dtype(other, "F32, F16 and BF16")),
    };
    let (class, kind) = match config.architecture {
        Architecture::Llama => ("LlamaForCausalLM", "llama"),
        Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        Architecture::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
        Architecture::Mistral => ("MistralForCausalLM", "mistral"),
    };
    let mut json = json!({
        "architectures": [class],
        "model_type": kind,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn,
        "vocab_size": config.vocabulary,
        "hidden_act": "silu",
        "rms_norm_eps": decimal(config.rms_eps),
        "rope_theta": decimal(config.rope.theta),
        "rope_scaling": rope_scaling(&config.rope.scaling)?,
        "tie_word_embeddings": config.tied_head,
        "max_position_embeddings": config.max_context,
        "bos_token_id": config.bos,
        "eos_token_id": config.eos,
        "torch_dtype": torch_dtype,
    });
    if let Value::Object(object) = &mut json {
        add_window(object, config);
    }
    Ok(json)
}

fn add_window(object: &mut Map<String, Value>, config: &ModelConfig) {
    let window = config.sliding_window;
    match config.architecture {
        Architecture::Llama => {}
        Architecture::Mistral => {
            object.insert("sliding_window".to_owned(), json!(window));
        }
        Architecture::Qwen2 | Architecture::Qwen3 => {
            object.insert("sliding_window".to_owned(), json!(window));
            object.insert("use_sliding_window".to_owned(), json!(window.is_some()));
            // The first layer with a window: all or none of them.
            let first = if window.is_some() { 0 } else { config.layers };
            object.insert("max_window_layers".to_owned(), json!(first));
        }
    }
}

fn rope_scaling(scaling: &RopeScaling) -> Result<Value, WriteError> {
    Ok(match scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": decimal(*factor) }),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
            "rope_type": "llama3",
            "factor": decimal(*factor),
            "low_freq_factor": decimal(*low_freq_factor),
            "high_freq_factor": decimal(*high_freq_factor),
            "original_max_position_embeddings": original_context,
        }),
        RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => json!({
            "rope_type": "yarn",
            "factor": decimal(*factor),
            "original_max_position_embeddings": original_context,
            "beta_fast": decimal(*beta_fast),
            "beta_slow": decimal(*beta_slow),
            "attention_factor": decimal(*attention_factor),
        }),
        RopeScaling::Factors(_) => {
            let what = "rope scaling by a list of factors".to_owned();
            return Err(WriteError::Inexpressible { what, possible: "none, linear, llama3 and yarn" });
        }
    })
}

/// The shortest decimal of an f32, so that 1e-5 is not written as 9.99999974e-6.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}
