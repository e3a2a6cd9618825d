//! The tensors of a decoder, by their place in it.
//!
//! `M` is the form in which a backend keeps its matrices; vectors are always f32.

use shoal_checkpoint::{Checkpoint, TensorView};

use crate::LoadError;

#[derive(Debug)]
pub(crate) struct Weights<M> {
    /// `vocabulary × hidden`; also the head where `head` is `None`.
    pub(crate) embedding: M,
    pub(crate) layers: Vec<Layer<M>>,
    pub(crate) norm: Vec<f32>,
    pub(crate) head: Option<M>,
}

#[derive(Debug)]
pub(crate) struct Layer<M> {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Projection<M>,
    pub(crate) key: Projection<M>,
    pub(crate) value: Projection<M>,
    pub(crate) attention_output: M,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) gate: M,
    pub(crate) up: M,
    pub(crate) down: M,
}

/// A matrix into heads, with what some families do to its output.
#[derive(Debug)]
pub(crate) struct Projection<M> {
    pub(crate) matrix: M,
    /// One per output.
    pub(crate) bias: Option<Vec<f32>>,
    /// Weights of the RMS norm of each head.
    pub(crate) head_norm: Option<Vec<f32>>,
}

impl<M> Weights<M> {
    pub(crate) fn head(&self) -> &M {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

/// Takes tensors out of a checkpoint in model order, converting matrices by `convert`.
pub(crate) struct Loader<'a, C> {
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) convert: C,
    /// Told the bytes read so far and those of the whole model after each tensor.
    pub(crate) progress: &'a dyn Fn(u64, u64),
    pub(crate) loaded_bytes: u64,
    pub(crate) total_bytes: u64,
}

impl<'a, M, C: FnMut(&TensorView<'_>) -> Result<M, LoadError>> Loader<'a, C> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, progress: &'a dyn Fn(u64, u64), convert: C) -> Self {
        let sizes = checkpoint.config().tensors().into_iter();
        let total_bytes =
            sizes.filter_map(|t| Some(checkpoint.tensor(&t.name).ok()?.bytes.len() as u64)).sum();
        Self { checkpoint, convert, progress, loaded_bytes: 0, total_bytes }
    }

    pub(crate) fn load(mut self) -> Result<Weights<M>, LoadError> {
        let config = self.checkpoint.config();
        let (hidden, vocabulary) = (config.hidden, config.vocabulary);
        let embedding = self.matrix("model.embed_tokens.weight", vocabulary, hidden)?;
        let layers = (0..config.layers).map(|layer| self.layer(layer)).collect::<Result<_, _>>()?;
        let norm = self.vector("model.norm.weight", hidden)?;
        let head =
            (!config.tied_head).then(|| self.matrix("lm_head.weight", vocabulary, hidden)).transpose()?;
        Ok(Weights { embedding, layers, norm, head })
    }

    fn layer(&mut self, layer: usize) -> Result<Layer<M>, LoadError> {
        let config = self.checkpoint.config();
        let (hidden, ffn) = (config.hidden, config.ffn);
        let (q_width, kv_width) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let name = |stem: &str| format!("model.layers.{layer}.{stem}.weight");
        Ok(Layer {
            attention_norm: self.vector(&name("input_layernorm"), hidden)?,
            query: self.projection(layer, 'q', q_width, config.qk_norm)?,
            key: self.projection(layer, 'k', kv_width, config.qk_norm)?,
            value: self.projection(layer, 'v', kv_width, false)?,
            attention_output: self.matrix(&name("self_attn.o_proj"), hidden, q_width)?,
            ffn_norm: self.vector(&name("post_attention_layernorm"), hidden)?,
            gate: self.matrix(&name("mlp.gate_proj"), ffn, hidden)?,
            up: self.matrix(&name("mlp.up_proj"), ffn, hidden)?,
            down: self.matrix(&name("mlp.down_proj"), hidden, ffn)?,
        })
    }

    fn projection(
        &mut self,
        layer: usize,
        which: char,
        outputs: usize,
        normed: bool,
    ) -> Result<Projection<M>, LoadError> {
        let config = self.checkpoint.config();
        let name = |rest: &str| format!("model.layers.{layer}.self_attn.{which}_{rest}");
        let matrix = self.matrix(&name("proj.weight"), outputs, config.hidden)?;
        let bias = config.qkv_bias.then(|| self.vector(&name("proj.bias"), outputs)).transpose()?;
        let head_norm = normed.then(|| self.vector(&name("norm.weight"), config.head_dim)).transpose()?;
        Ok(Projection { matrix, bias, head_norm })
    }

    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<M, LoadError> {
        let view = self.tensor(name, &[outputs, inputs])?;
        let matrix = (self.convert)(&view)?;
        self.report(&view);
        Ok(matrix)
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        let view = self.tensor(name, &[length])?;
        let values = view.to_f32()?;
        self.report(&view);
        Ok(values)
    }

    fn tensor(&self, name: &str, expected: &[usize]) -> Result<TensorView<'a>, LoadError> {
        let view = self.checkpoint.tensor(name)?;
        if view.shape != expected {
            let (name, expected, found) = (name.to_owned(), expected.to_vec(), view.shape);
            return Err(LoadError::Shape { name, expected, found });
        }
        Ok(view)
    }

    fn report(&mut self, view: &TensorView<'_>) {
        self.loaded_bytes += view.bytes.len() as u64;
        (self.progress)(self.loaded_bytes, self.total_bytes);
    }
}
