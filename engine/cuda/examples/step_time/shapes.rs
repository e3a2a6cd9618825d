//! Shapes by name, as their configuration files give them.

use shoal_checkpoint::{Architecture, ModelConfig, Rope, RopeScaling, RopeStyle};

use crate::Outcome;

pub(crate) fn named(name: &str) -> Outcome<ModelConfig> {
    match name {
        "llama-3.1-8b" => Ok(llama()),
        "qwen3-8b" => Ok(qwen3()),
        other => Err(format!("no shape {other}; there are llama-3.1-8b and qwen3-8b").into()),
    }
}

fn llama() -> ModelConfig {
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192,
    };
    ModelConfig {
        architecture: Architecture::Llama,
        hidden: 4096,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        ffn: 14336,
        vocabulary: 128_256,
        rms_eps: 1e-5,
        rope: Rope { theta: 500_000.0, style: RopeStyle::Half, scaling },
        qkv_bias: false,
        qk_norm: false,
        tied_head: false,
        sliding_window: None,
        max_context: 131_072,
        bos: None,
        eos: Vec::new(),
    }
}

fn qwen3() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen3,
        layers: 36,
        ffn: 12288,
        vocabulary: 151_936,
        rms_eps: 1e-6,
        rope: Rope { theta: 1e6, style: RopeStyle::Half, scaling: RopeScaling::None },
        qk_norm: true,
        max_context: 40_960,
        ..llama()
    }
}
