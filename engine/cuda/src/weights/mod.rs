//! A decoder's matrices and vectors on the device, all bf16, in the form that the kernels read.

mod dummy;
mod load;

use half::bf16;
use shoal_checkpoint::ModelConfig;
use shoal_kernels::{Buffer, LaunchError, Rows};

pub(crate) use dummy::dummy;
pub(crate) use load::load;

/// Dense rows of equal width.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(crate) buffer: Buffer<bf16>,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

impl Matrix {
    pub(crate) fn rows(&self) -> Result<Rows<'_, bf16>, LaunchError> {
        self.buffer.rows(self.outputs, self.inputs)
    }
}

#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Matrix,
    /// `None` where the embedding is the head.
    pub(crate) head: Option<Matrix>,
}

/// Vectors are matrices of one row.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Matrix,
    /// Queries, then keys, then values.
    pub(crate) qkv: Matrix,
    pub(crate) qkv_bias: Option<Matrix>,
    /// Norm weights of each query head and each key head.
    pub(crate) head_norms: Option<(Matrix, Matrix)>,
    pub(crate) attention_output: Matrix,
    pub(crate) ffn_norm: Matrix,
    /// Eight rows of the gate, then the eight rows of up that belong to them, and so on: see the kernel
    /// `silu_mul`.
    pub(crate) gate_up: Matrix,
    pub(crate) down: Matrix,
}

impl Weights {
    pub(crate) fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

/// Rows of gate or up that lie together.
const BLOCK: usize = 8;

/// Where the rows of one device matrix come from: tensors by name, and for each row the tensor and the row
/// in it.
pub(crate) struct Recipe {
    pub(crate) tensors: Vec<(String, usize)>,
    pub(crate) inputs: usize,
    interleaved: bool,
}

impl Recipe {
    fn stacked(inputs: usize, tensors: Vec<(String, usize)>) -> Self {
        Self { tensors, inputs, interleaved: false }
    }

    fn outputs(&self) -> usize {
        self.tensors.iter().map(|(_, rows)| rows).sum()
    }

    /// Tensor and row within it of device row `row`.
    fn source(&self, row: usize) -> (usize, usize) {
        if self.interleaved {
            let block = row / BLOCK;
            return (block % 2, block / 2 * BLOCK + row % BLOCK);
        }
        let mut row = row;
        for (index, (_, rows)) in self.tensors.iter().enumerate() {
            if row < *rows {
                return (index, row);
            }
            row -= rows;
        }
        (self.tensors.len(), row)
    }
}

/// Makes one device matrix.
type Make<'a, E> = dyn FnMut(Recipe) -> Result<Matrix, E> + 'a;

/// Walks the model in its order, making each matrix by `make`.
fn assemble<E>(config: &ModelConfig, make: &mut Make<'_, E>) -> Result<Weights, E> {
    let (hidden, vocabulary) = (config.hidden, config.vocabulary);
    let whole = |name: &str, outputs, inputs| Recipe::stacked(inputs, vec![(name.to_owned(), outputs)]);
    let embedding = make(whole("model.embed_tokens.weight", vocabulary, hidden))?;
    let layers =
        (0..config.layers).map(|layer| assemble_layer(config, layer, make)).collect::<Result<_, E>>()?;
    let norm = make(whole("model.norm.weight", 1, hidden))?;
    let head = (!config.tied_head).then(|| make(whole("lm_head.weight", vocabulary, hidden))).transpose()?;
    Ok(Weights { embedding, layers, norm, head })
}

fn assemble_layer<E>(config: &ModelConfig, layer: usize, make: &mut Make<'_, E>) -> Result<Layer, E> {
    let (hidden, ffn, dim) = (config.hidden, config.ffn, config.head_dim);
    let (q, kv) = (config.heads * dim, config.kv_heads * dim);
    let name = |rest: &str| format!("model.layers.{layer}.{rest}");
    let one = |rest: &str, outputs, inputs| Recipe::stacked(inputs, vec![(name(rest), outputs)]);
    let qkv = |what: &str, q, kv| {
        let part = |which: char, rows| (name(&format!("self_attn.{which}_proj.{what}")), rows);
        vec![part('q', q), part('k', kv), part('v', kv)]
    };
    Ok(Layer {
        attention_norm: make(one("input_layernorm.weight", 1, hidden))?,
        qkv: make(Recipe::stacked(hidden, qkv("weight", q, kv)))?,
        // A bias is a column: one element for each row of its matrix.
        qkv_bias: config.qkv_bias.then(|| make(Recipe::stacked(1, qkv("bias", q, kv)))).transpose()?,
        head_norms: if config.qk_norm {
            let query = make(one("self_attn.q_norm.weight", 1, dim))?;
            Some((query, make(one("self_attn.k_norm.weight", 1, dim))?))
        } else {
            None
        },
        attention_output: make(one("self_attn.o_proj.weight", hidden, q))?,
        ffn_norm: make(one("post_attention_layernorm.weight", 1, hidden))?,
        gate_up: make(Recipe {
            tensors: vec![(name("mlp.gate_proj.weight"), ffn), (name("mlp.up_proj.weight"), ffn)],
            inputs: hidden,
            interleaved: true,
        })?,
        down: make(one("mlp.down_proj.weight", hidden, ffn))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_gate_and_up_alternate_in_blocks_of_eight() {
        let tensors = vec![("gate".to_owned(), 16), ("up".to_owned(), 16)];
        let recipe = Recipe { tensors, inputs: 4, interleaved: true };
        let sources: Vec<_> = [0, 7, 8, 15, 16, 31].map(|row| recipe.source(row)).into();
        assert_eq!(sources, [(0, 0), (0, 7), (1, 0), (1, 7), (0, 8), (1, 15)]);
    }

    #[test]
    fn stacked_rows_follow_each_other() {
        let recipe = Recipe::stacked(4, vec![("q".to_owned(), 3), ("k".to_owned(), 1), ("v".to_owned(), 1)]);
        let sources: Vec<_> = (0..5).map(|row| recipe.source(row)).collect();
        assert_eq!(sources, [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)]);
        assert_eq!(recipe.outputs(), 5);
    }
}
