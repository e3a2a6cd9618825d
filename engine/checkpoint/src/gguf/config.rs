//! Model configuration from GGUF metadata.

use super::{Gguf, Metadata};
use crate::config::{Architecture, ModelConfig, Rope, RopeScaling, RopeStyle, yarn_attention_factor};
use crate::error::{Fault, Part, Problem};

/// Ends of a turn or text under names that models of this family use. GGUF states only one of them as
/// its end token, while chat models stop at either.
const END_TEXTS: [&str; 8] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "</s>",
];

/// `rope_factors` is the content of `rope_freqs.weight`, if the file has it.
pub(crate) fn model_config(gguf: &Gguf<'_>, rope_factors: Option<Vec<f32>>) -> Result<ModelConfig, Fault> {
    let (architecture, prefix) = architecture(&gguf.metadata)?;
    let keys = Keys { metadata: &gguf.metadata, prefix };
    let hidden = keys.size("embedding_length")?;
    let heads = keys.size("attention.head_count")?;
    let head_dim = match keys.optional_size("attention.key_length")? {
        Some(head_dim) => head_dim,
        None => hidden / heads.max(1),
    };
    keys.expect("attention.value_length", head_dim)?;
    keys.expect("rope.dimension_count", head_dim)?;
    let (scaling, extended_context) = rope_scaling(&keys, rope_factors)?;
    Ok(ModelConfig {
        architecture,
        hidden,
        layers: keys.size("block_count")?,
        heads,
        kv_heads: keys.optional_size("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        ffn: keys.size("feed_forward_length")?,
        vocabulary: embedding_rows(gguf)?,
        rms_eps: keys.float("attention.layer_norm_rms_epsilon")?,
        rope: Rope {
            theta: keys.optional_float("rope.freq_base")?.unwrap_or(10_000.0),
            style: match architecture {
                Architecture::Llama | Architecture::Mistral => RopeStyle::Interleaved,
                Architecture::Qwen2 | Architecture::Qwen3 => RopeStyle::Half,
            },
            scaling,
        },
        qkv_bias: gguf.tensors.contains_key("blk.0.attn_q.bias"),
        qk_norm: gguf.tensors.contains_key("blk.0.attn_q_norm.weight"),
        tied_head: !gguf.tensors.contains_key("output.weight"),
        sliding_window: keys.optional_size("attention.sliding_window")?.filter(|window| *window > 0),
        max_context: keys.size("context_length")?.max(extended_context),
        bos: gguf.metadata.token_id("tokenizer.ggml.bos_token_id")?,
        eos: end_tokens(&gguf.metadata)?,
    })
}

fn architecture(metadata: &Metadata<'_>) -> Result<(Architecture, &'static str), Fault> {
    const KEY: &str = "general.architecture";
    match metadata.string(KEY)? {
        None => Err(Part::key(KEY).has(Problem::Missing)),
        Some("llama") => Ok((Architecture::Llama, "llama")),
        Some("qwen2") => Ok((Architecture::Qwen2, "qwen2")),
        Some("qwen3") => Ok((Architecture::Qwen3, "qwen3")),
        Some(other) => Err(Part::key(KEY).has(Problem::not_allowed(other, "llama, qwen2 and qwen3"))),
    }
}

/// Keys under the architecture's prefix.
struct Keys<'a> {
    metadata: &'a Metadata<'a>,
    prefix: &'static str,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>, Fault> {
        self.metadata.size(&self.name(key))
    }

    fn size(&self, key: &str) -> Result<usize, Fault> {
        self.optional_size(key)?.ok_or_else(|| Part::key(self.name(key)).has(Problem::Missing))
    }

    fn optional_float(&self, key: &str) -> Result<Option<f32>, Fault> {
        self.metadata.float(&self.name(key))
    }

    fn float(&self, key: &str) -> Result<f32, Fault> {
        self.optional_float(key)?.ok_or_else(|| Part::key(self.name(key)).has(Problem::Missing))
    }

    /// A key that may be absent but, if present, can only say what the others already imply.
    fn expect(&self, key: &str, wanted: usize) -> Result<(), Fault> {
        match self.optional_size(key)? {
            Some(found) if found != wanted => Err(Part::key(self.name(key))
                .has(Problem::not_allowed(found, format_args!("the head size, {wanted}")))),
            _ => Ok(()),
        }
    }
}

/// Scaling and the context it reaches.
fn rope_scaling(keys: &Keys<'_>, factors: Option<Vec<f32>>) -> Result<(RopeScaling, usize), Fault> {
    if let Some(factors) = factors {
        return Ok((RopeScaling::Factors(factors), 0));
    }
    let key = keys.name("rope.scaling.type");
    match keys.metadata.string(&key)? {
        None => Ok((keys.optional_float("rope.scale_linear")?.map_or(RopeScaling::None, linear), 0)),
        Some("none") => Ok((RopeScaling::None, 0)),
        Some("linear") => Ok((linear(keys.float("rope.scaling.factor")?), 0)),
        Some("yarn") => yarn(keys),
        Some(other) => Err(Part::key(key).has(Problem::not_allowed(other, "none, linear and yarn"))),
    }
}

#[allow(clippy::float_cmp)] // exactly one is how converters write "no scaling"
fn linear(factor: f32) -> RopeScaling {
    if factor == 1.0 { RopeScaling::None } else { RopeScaling::Linear { factor } }
}

fn yarn(keys: &Keys<'_>) -> Result<(RopeScaling, usize), Fault> {
    let factor = keys.float("rope.scaling.factor")?;
    let original_context = match keys.optional_size("rope.scaling.original_context_length")? {
        Some(original) => original,
        None => keys.size("context_length")?,
    };
    let attention = keys.optional_float("rope.scaling.attn_factor")?.unwrap_or(1.0);
    let scaling = RopeScaling::Yarn {
        factor,
        original_context,
        beta_fast: keys.optional_float("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
        beta_slow: keys.optional_float("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
        attention_factor: attention * yarn_attention_factor(factor),
    };
    Ok((scaling, (original_context as f64 * f64::from(factor)) as usize))
}

/// The embedding matrix, not the token list, says how many logits there are.
fn embedding_rows(gguf: &Gguf<'_>) -> Result<usize, Fault> {
    const NAME: &str = "token_embd.weight";
    let entry = gguf.tensors.get(NAME).ok_or_else(|| Part::tensor(NAME).has(Problem::Missing))?;
    Ok(entry.shape[0])
}

fn end_tokens(metadata: &Metadata<'_>) -> Result<Vec<u32>, Fault> {
    let mut ends = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        ends.extend(metadata.token_id(key)?);
    }
    let tokens = metadata.strings("tokenizer.ggml.tokens")?.unwrap_or_default();
    let types = metadata.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
    let is_control = |id: usize| types.get(id) == Some(&3);
    let is_end =
        |(id, text): (usize, &&str)| (is_control(id) && END_TEXTS.contains(text)).then_some(id as u32);
    let named: Vec<u32> = tokens.iter().enumerate().filter_map(is_end).take(END_TEXTS.len()).collect();
    ends.extend(named);
    let mut seen = std::collections::BTreeSet::new();
    ends.retain(|id| seen.insert(*id));
    Ok(ends)
}
