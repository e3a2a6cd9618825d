//! One description for every decoder of the family.

/// Family member; it decides tensor names and defaults, never the arithmetic, which follows the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Mistral,
}

/// Shape and constants of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Width of the gated feed-forward block.
    pub ffn: usize,
    /// Token ids are `0..vocabulary`.
    pub vocabulary: usize,
    pub rms_eps: f32,
    pub rope: Rope,
    /// Bias on the q, k and v projections (Qwen2).
    pub qkv_bias: bool,
    /// RMS norm of each q and k head before rope (Qwen3).
    pub qk_norm: bool,
    /// The output head is the embedding matrix.
    pub tied_head: bool,
    /// A token attends to this many tokens, itself included; `None` is all of them.
    pub sliding_window: Option<usize>,
    /// Tokens of prompt and output together.
    pub max_context: usize,
    pub bos: Option<u32>,
    /// Tokens that end a sequence.
    pub eos: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    pub theta: f32,
    pub style: RopeStyle,
    pub scaling: RopeScaling,
}

/// Which two elements of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// `i` and `i + dim/2`: Hugging Face weights.
    Half,
    /// `2i` and `2i + 1`: GGUF files of architecture `llama`, whose q and k rows are permuted for it.
    Interleaved,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    Linear {
        factor: f32,
    },
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_context: usize,
    },
    Yarn {
        factor: f32,
        original_context: usize,
        beta_fast: f32,
        beta_slow: f32,
        attention_factor: f32,
    },
    /// The frequency of pair `i` is divided by `factors[i]`; there are `head_dim / 2` of them. GGUF files
    /// carry llama3 scaling this way, as their tensor `rope_freqs.weight`.
    Factors(Vec<f32>),
}

/// Yarn's default scale of the attention logits' square root: `1 + 0.1 ln(factor)`.
pub(crate) fn yarn_attention_factor(factor: f32) -> f32 {
    if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 }
}
