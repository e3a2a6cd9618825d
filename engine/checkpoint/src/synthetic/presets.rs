//! One preset per variant. Contexts are short so that tests reach the interesting positions.

use super::SyntheticModel;
use crate::config::{Architecture, ModelConfig, Rope, RopeScaling, RopeStyle, yarn_attention_factor};

impl SyntheticModel {
    /// All of them, in a fixed order.
    pub fn presets() -> Vec<Self> {
        vec![
            Self::llama2(),
            Self::llama3(),
            Self::linear(),
            Self::yarn(),
            Self::smollm(),
            Self::qwen2(),
            Self::qwen3(),
            Self::mistral(),
            Self::wide(),
        ]
    }

    /// As many key-value heads as heads, a head of its own.
    pub fn llama2() -> Self {
        let config = ModelConfig { kv_heads: 4, ..base(Architecture::Llama) };
        Self { name: "llama2", config, seed: 4 }
    }

    /// Grouped heads and llama3 rope, with wavelengths on all three sides of its bounds.
    pub fn llama3() -> Self {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 64,
        };
        Self { name: "llama3", config: scaled(scaling), seed: 6 }
    }

    pub fn linear() -> Self {
        Self { name: "linear", config: scaled(RopeScaling::Linear { factor: 4.0 }), seed: 51 }
    }

    /// The prompt of the reference is longer than the original context.
    pub fn yarn() -> Self {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            original_context: 16,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: yarn_attention_factor(4.0),
        };
        Self { name: "yarn", config: scaled(scaling), seed: 11 }
    }

    /// Tied head, an odd number of head groups.
    pub fn smollm() -> Self {
        let config =
            ModelConfig { tied_head: true, heads: 6, kv_heads: 2, hidden: 96, ..base(Architecture::Llama) };
        Self { name: "smollm", config, seed: 4 }
    }

    /// Bias on q, k and v.
    pub fn qwen2() -> Self {
        let config =
            ModelConfig { qkv_bias: true, tied_head: true, rms_eps: 1e-6, ..base(Architecture::Qwen2) };
        Self { name: "qwen2", config, seed: 37 }
    }

    /// Norms on q and k; heads × head size is not the hidden size.
    pub fn qwen3() -> Self {
        let config = ModelConfig { qk_norm: true, head_dim: 32, rms_eps: 1e-6, ..base(Architecture::Qwen3) };
        Self { name: "qwen3", config, seed: 1 }
    }

    /// A sliding window shorter than the prompt of the reference.
    pub fn mistral() -> Self {
        let config = ModelConfig { sliding_window: Some(8), layers: 3, ..base(Architecture::Mistral) };
        Self { name: "mistral", config, seed: 14 }
    }

    /// Rows of 256 elements, which every block format can store; heads of 64 as in most real models.
    pub fn wide() -> Self {
        let config = ModelConfig { hidden: 256, ffn: 512, head_dim: 64, ..base(Architecture::Llama) };
        Self { name: "wide", config, seed: 13 }
    }
}

fn base(architecture: Architecture) -> ModelConfig {
    ModelConfig {
        architecture,
        hidden: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        ffn: 128,
        vocabulary: SyntheticModel::MIN_VOCABULARY,
        rms_eps: 1e-5,
        rope: Rope { theta: 10_000.0, style: RopeStyle::Half, scaling: RopeScaling::None },
        qkv_bias: false,
        qk_norm: false,
        tied_head: false,
        sliding_window: None,
        max_context: 4096,
        bos: Some(1),
        eos: vec![2],
    }
}

fn scaled(scaling: RopeScaling) -> ModelConfig {
    let base = base(Architecture::Llama);
    ModelConfig { rope: Rope { scaling, ..base.rope }, ..base }
}
