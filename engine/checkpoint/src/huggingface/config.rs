//! `config.json` of the decoder family.

use serde_json::{Map, Value};

use super::fields::{Fields, type_name};
use crate::config::{Architecture, ModelConfig, Rope, RopeScaling, RopeStyle, yarn_attention_factor};
use crate::error::{Fault, Problem};

pub(super) fn model_config(object: &Map<String, Value>) -> Result<ModelConfig, Fault> {
    let fields = Fields::new(object);
    let architecture = architecture(&fields)?;
    refuse_unknown_features(&fields)?;
    let hidden = fields.size("hidden_size")?;
    let heads = fields.size("num_attention_heads")?;
    let (rope, extended_context) = rope(&fields)?;
    Ok(ModelConfig {
        architecture,
        hidden,
        layers: fields.size("num_hidden_layers")?,
        heads,
        kv_heads: fields.optional_size("num_key_value_heads")?.unwrap_or(heads),
        head_dim: fields.optional_size("head_dim")?.unwrap_or_else(|| hidden / heads.max(1)),
        ffn: fields.size("intermediate_size")?,
        vocabulary: fields.size("vocab_size")?,
        rms_eps: fields.optional_float("rms_norm_eps")?.unwrap_or(1e-6),
        rope,
        qkv_bias: architecture == Architecture::Qwen2,
        qk_norm: architecture == Architecture::Qwen3,
        tied_head: fields.boolean("tie_word_embeddings")?.unwrap_or(false),
        sliding_window: sliding_window(&fields, architecture)?,
        max_context: fields.size("max_position_embeddings")?.max(extended_context),
        bos: token_ids(object, "bos_token_id")?.first().copied(),
        eos: token_ids(object, "eos_token_id")?,
    })
}

fn architecture(fields: &Fields<'_>) -> Result<Architecture, Fault> {
    const KEY: &str = "architectures";
    let stated = fields.get(KEY).ok_or_else(|| fields.part(KEY).has(Problem::Missing))?;
    match stated.get(0).and_then(Value::as_str) {
        Some("LlamaForCausalLM") => Ok(Architecture::Llama),
        Some("Qwen2ForCausalLM") => Ok(Architecture::Qwen2),
        Some("Qwen3ForCausalLM") => Ok(Architecture::Qwen3),
        Some("MistralForCausalLM") => Ok(Architecture::Mistral),
        _ => {
            let allowed = "LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM and MistralForCausalLM";
            Err(fields.part(KEY).has(Problem::not_allowed(stated, allowed)))
        }
    }
}

/// Computing on without these would give wrong tokens.
fn refuse_unknown_features(fields: &Fields<'_>) -> Result<(), Fault> {
    fields.refuse("attention_bias")?;
    fields.refuse("mlp_bias")?;
    if let Some(activation) = fields.string("hidden_act")?
        && activation != "silu"
    {
        return Err(fields.part("hidden_act").has(Problem::not_allowed(activation, "silu")));
    }
    if let Some(partial) = fields.optional_float("partial_rotary_factor")?
        && (partial - 1.0).abs() > f32::EPSILON
    {
        return Err(fields.part("partial_rotary_factor").has(Problem::not_allowed(partial, "1")));
    }
    match fields.get("quantization_config") {
        None => Ok(()),
        Some(_) => Err(fields
            .part("quantization_config")
            .has(Problem::not_allowed("present", "unquantized bf16, f16 or f32 weights, or a GGUF file"))),
    }
}

/// The window of all layers. Qwen's is off unless asked for, and then holds from layer `max_window_layers`
/// on; a mixture of layers is refused.
fn sliding_window(fields: &Fields<'_>, architecture: Architecture) -> Result<Option<usize>, Fault> {
    let window = fields.optional_size("sliding_window")?;
    let on = match architecture {
        Architecture::Llama => false,
        Architecture::Mistral => true,
        Architecture::Qwen2 | Architecture::Qwen3 => fields.boolean("use_sliding_window")?.unwrap_or(false),
    };
    let Some(window) = window.filter(|_| on) else { return Ok(None) };
    let layers = fields.size("num_hidden_layers")?;
    let full = match architecture {
        Architecture::Qwen2 | Architecture::Qwen3 => fields.optional_size("max_window_layers")?.unwrap_or(28),
        Architecture::Llama | Architecture::Mistral => 0,
    };
    let full = full_layers(fields)?.unwrap_or(full);
    match full {
        0 => Ok(Some(window)),
        full if full >= layers => Ok(None),
        full => Err(fields
            .part("max_window_layers")
            .has(Problem::not_allowed(full, format_args!("0 or at least {layers}: all layers alike")))),
    }
}

/// Number of layers with full attention by the newer `layer_types` list.
fn full_layers(fields: &Fields<'_>) -> Result<Option<usize>, Fault> {
    const KEY: &str = "layer_types";
    let Some(types) = fields.get(KEY) else { return Ok(None) };
    let Some(types) = types.as_array() else {
        return Err(fields.part(KEY).has(Problem::Type { found: type_name(types), wanted: "array" }));
    };
    let other =
        types.iter().find(|kind| !matches!(kind.as_str(), Some("full_attention" | "sliding_attention")));
    if let Some(other) = other {
        let allowed = "full_attention and sliding_attention";
        return Err(fields.part(KEY).has(Problem::not_allowed(other, allowed)));
    }
    Ok(Some(types.iter().filter(|kind| kind.as_str() == Some("full_attention")).count()))
}

/// Rope and the context that its scaling reaches. `rope_parameters` is the newer form, which also holds
/// the base.
fn rope(fields: &Fields<'_>) -> Result<(Rope, usize), Fault> {
    let parameters = match fields.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => fields.object("rope_scaling")?,
    };
    let nested_theta = parameters.map_or(Ok(None), |parameters| parameters.optional_float("rope_theta"))?;
    let theta = nested_theta.or(fields.optional_float("rope_theta")?).unwrap_or(10_000.0);
    let (scaling, context) = match parameters {
        Some(parameters) => scaling(fields, &parameters)?,
        None => (RopeScaling::None, 0),
    };
    Ok((Rope { theta, style: RopeStyle::Half, scaling }, context))
}

fn scaling(fields: &Fields<'_>, rope: &Fields<'_>) -> Result<(RopeScaling, usize), Fault> {
    let kind = rope.string("rope_type")?.or(rope.string("type")?);
    let original = || match rope.optional_size("original_max_position_embeddings")? {
        Some(original) => Ok(original),
        None => fields.size("max_position_embeddings"),
    };
    match kind {
        None | Some("default") => Ok((RopeScaling::None, 0)),
        Some("linear") => Ok((RopeScaling::Linear { factor: rope.float("factor")? }, 0)),
        Some("llama3") => {
            let scaling = RopeScaling::Llama3 {
                factor: rope.float("factor")?,
                low_freq_factor: rope.float("low_freq_factor")?,
                high_freq_factor: rope.float("high_freq_factor")?,
                original_context: original()?,
            };
            Ok((scaling, 0))
        }
        Some("yarn") => yarn(rope, original()?),
        Some(other) => {
            let allowed = "default, linear, llama3 and yarn";
            Err(rope.part("rope_type").has(Problem::not_allowed(other, allowed)))
        }
    }
}

fn yarn(rope: &Fields<'_>, original_context: usize) -> Result<(RopeScaling, usize), Fault> {
    let factor = rope.float("factor")?;
    if rope.boolean("truncate")? == Some(false) {
        return Err(rope.part("truncate").has(Problem::not_allowed(false, "true")));
    }
    for key in ["mscale", "mscale_all_dim"] {
        if rope.get(key).is_some() {
            return Err(rope.part(key).has(Problem::not_allowed("present", "attention_factor instead")));
        }
    }
    let attention = rope.optional_float("attention_factor")?;
    let scaling = RopeScaling::Yarn {
        factor,
        original_context,
        beta_fast: rope.optional_float("beta_fast")?.unwrap_or(32.0),
        beta_slow: rope.optional_float("beta_slow")?.unwrap_or(1.0),
        attention_factor: attention.unwrap_or_else(|| yarn_attention_factor(factor)),
    };
    Ok((scaling, (original_context as f64 * f64::from(factor)) as usize))
}

/// A token id, a list of them, or nothing.
pub(super) fn token_ids(object: &Map<String, Value>, key: &str) -> Result<Vec<u32>, Fault> {
    let fields = Fields::new(object);
    let Some(value) = fields.get(key) else { return Ok(Vec::new()) };
    let one = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| fields.part(key).has(Problem::not_allowed(value, "a token id or a list of them")))
    };
    match value.as_array() {
        Some(values) => values.iter().map(one).collect(),
        None => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::damage::{self, damage, damaged};
    use crate::{DType, SyntheticModel, limits, write};

    proptest! {
        #![proptest_config(damage::config())]

        #[test]
        fn a_damaged_configuration_is_believable_or_refused(
            preset in any::<prop::sample::Index>(),
            damages in prop::collection::vec(damage(), 1..3),
        ) {
            let presets = SyntheticModel::presets();
            let json = write::config_json(&preset.get(&presets).config, DType::F32).expect("expressible");
            let text = json.to_string();
            let bytes = damaged(text.as_bytes(), text.len(), &damages);
            let object = serde_json::from_slice(&bytes).unwrap_or_default();
            if let Ok(config) = model_config(&object)
                && limits::check(&config).is_ok()
            {
                prop_assert!(config.layers <= 1024 && config.heads.is_multiple_of(config.kv_heads));
            }
        }
    }
}
