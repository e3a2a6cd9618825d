//! Which tensors a decoder of a given configuration has, and their shapes.

use crate::ModelConfig;
use crate::error::{Fault, Part, Problem};

/// A tensor by its Hugging Face name; `shape` is row-major, `[outputs, inputs]` for a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub shape: Vec<usize>,
}

impl ModelConfig {
    /// Every tensor of the model: embedding, layers in order, final norm, head unless tied.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.to_owned(), shape: shape.to_vec() };
        let mut specs = vec![spec("model.embed_tokens.weight", &[self.vocabulary, self.hidden])];
        for layer in 0..self.layers {
            specs.extend(self.layer_tensors(layer));
        }
        specs.push(spec("model.norm.weight", &[self.hidden]));
        if !self.tied_head {
            specs.push(spec("lm_head.weight", &[self.vocabulary, self.hidden]));
        }
        specs
    }

    fn layer_tensors(&self, layer: usize) -> Vec<TensorSpec> {
        let (hidden, ffn, head) = (self.hidden, self.ffn, self.head_dim);
        let (q, kv) = (self.heads * head, self.kv_heads * head);
        let spec = |stem: &str, shape: &[usize]| TensorSpec {
            name: format!("model.layers.{layer}.{stem}"),
            shape: shape.to_vec(),
        };
        let mut specs = vec![
            spec("input_layernorm.weight", &[hidden]),
            spec("self_attn.q_proj.weight", &[q, hidden]),
            spec("self_attn.k_proj.weight", &[kv, hidden]),
            spec("self_attn.v_proj.weight", &[kv, hidden]),
            spec("self_attn.o_proj.weight", &[hidden, q]),
            spec("post_attention_layernorm.weight", &[hidden]),
            spec("mlp.gate_proj.weight", &[ffn, hidden]),
            spec("mlp.up_proj.weight", &[ffn, hidden]),
            spec("mlp.down_proj.weight", &[hidden, ffn]),
        ];
        if self.qkv_bias {
            specs.push(spec("self_attn.q_proj.bias", &[q]));
            specs.push(spec("self_attn.k_proj.bias", &[kv]));
            specs.push(spec("self_attn.v_proj.bias", &[kv]));
        }
        if self.qk_norm {
            specs.push(spec("self_attn.q_norm.weight", &[head]));
            specs.push(spec("self_attn.k_norm.weight", &[head]));
        }
        specs
    }
}

/// Checks that the model's tensors exist in the stated shapes. `shape_of` answers by Hugging Face name.
pub(crate) fn check<'a>(
    config: &ModelConfig,
    tensor_count: usize,
    shape_of: impl Fn(&str) -> Option<&'a [usize]>,
) -> Result<(), Fault> {
    // The list below is as long as the layer count says, which the file must first make plausible.
    if config.layers > tensor_count {
        let allowed = format!("at most one per tensor, {tensor_count}");
        return Err(Part::key("number of layers").has(Problem::not_allowed(config.layers, allowed)));
    }
    for TensorSpec { name, shape } in config.tensors() {
        match shape_of(&name) {
            None => return Err(Part::tensor(name).has(Problem::Missing)),
            Some(found) if found != shape => {
                let found = format!("of shape {found:?}");
                return Err(Part::tensor(name).has(Problem::not_allowed(found, format_args!("{shape:?}"))));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
