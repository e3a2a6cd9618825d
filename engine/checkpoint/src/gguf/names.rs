//! Tensor names: GGUF's on one side, Hugging Face's on the other.

const OUTSIDE_LAYERS: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Stems inside a layer, without `.weight` or `.bias`.
const INSIDE_LAYERS: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// A name without a counterpart (`rope_freqs.weight`) stays as it is.
pub(crate) fn to_hugging_face(name: &str) -> String {
    let outside = OUTSIDE_LAYERS.iter().find(|(gguf, _)| *gguf == name).map(|(_, name)| (*name).to_owned());
    let inside = || {
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (stem, kind) = rest.rsplit_once('.')?;
        let (_, stem) = INSIDE_LAYERS.iter().find(|(gguf, _)| *gguf == stem)?;
        Some(format!("model.layers.{layer}.{stem}.{kind}"))
    };
    outside.or_else(inside).unwrap_or_else(|| name.to_owned())
}

/// Inverse of [`to_hugging_face`].
pub(crate) fn from_hugging_face(name: &str) -> String {
    let outside = OUTSIDE_LAYERS.iter().find(|(_, face)| *face == name).map(|(name, _)| (*name).to_owned());
    let inside = || {
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (stem, kind) = rest.rsplit_once('.')?;
        let (stem, _) = INSIDE_LAYERS.iter().find(|(_, face)| *face == stem)?;
        Some(format!("blk.{layer}.{stem}.{kind}"))
    };
    outside.or_else(inside).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate_both_ways() {
        for (gguf, face) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("blk.7.attn_q.bias", "model.layers.7.self_attn.q_proj.bias"),
            ("blk.12.ffn_norm.weight", "model.layers.12.post_attention_layernorm.weight"),
            ("rope_freqs.weight", "rope_freqs.weight"),
        ] {
            assert_eq!(to_hugging_face(gguf), face);
            assert_eq!(from_hugging_face(face), gguf);
        }
    }
}
