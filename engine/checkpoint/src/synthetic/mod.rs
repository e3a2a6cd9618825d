//! Small seeded models of every variant the decoder knows, complete with tokenizer and chat template, so
//! that whole fleets can be tested in milliseconds. The numbers mean nothing, but they are the same
//! everywhere: `reference/reference.py` makes them again from the seed, computes a forward pass in float64,
//! and its results lie in `reference/logits`. How to regenerate them stands at the top of that script.

mod gguf_file;
mod presets;
mod text;
mod weights;

use std::path::Path;

use serde_json::json;

use crate::write::{self, Weight, WriteError};
use crate::{DType, ModelConfig};

/// A model that is not there until it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntheticModel {
    /// Names the preset, and the reference file of its logits.
    pub name: &'static str,
    /// Shape and constants. Rope style is that of the container written, whatever is said here; there are
    /// at least [`SyntheticModel::MIN_VOCABULARY`] token ids.
    pub config: ModelConfig,
    pub seed: u64,
}

impl SyntheticModel {
    /// Three special tokens (`<|endoftext|>`, `<|im_start|>`, `<|im_end|>` as 0, 1, 2), the 256 bytes from
    /// id 3 on, and 29 merged pairs. Larger vocabularies are filled with ids that no text has.
    pub const MIN_VOCABULARY: usize = 288;

    /// Writes a Hugging Face directory with weights in F32, F16 or BF16, in one file or several. BF16 and
    /// F32 hold the same numbers.
    pub fn write_safetensors(&self, directory: &Path, dtype: DType, shards: usize) -> Result<(), WriteError> {
        self.check()?;
        std::fs::create_dir_all(directory).map_err(WriteError::io(directory))?;
        let tokenizer = text::tokenizer(self.config.vocabulary);
        let files = [
            ("config.json", write::config_json(&self.config, dtype)?),
            ("tokenizer.json", write::tokenizer_json(&tokenizer)?),
            ("tokenizer_config.json", json!({ "chat_template": text::CHAT_TEMPLATE })),
        ];
        for (name, content) in files {
            let path = directory.join(name);
            std::fs::write(&path, format!("{content:#}\n")).map_err(WriteError::io(&path))?;
        }
        write::write_weights(directory, self.weights(), dtype, shards)
    }

    /// Writes a GGUF file. Matrices are stored in `dtype`, or in F16 where their rows are not whole blocks
    /// of it; vectors in F32.
    pub fn write_gguf(&self, path: &Path, dtype: DType) -> Result<(), WriteError> {
        self.check()?;
        gguf_file::write(self, path, dtype)
    }

    /// Elements of a tensor in Hugging Face order; all of them are exact in bf16.
    pub fn elements(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        weights::elements(self.seed, name, shape, self.config.tied_head)
    }

    fn weights(&self) -> Vec<Weight<'_>> {
        let weight = |spec: crate::TensorSpec| Weight {
            name: spec.name.clone(),
            shape: spec.shape.clone(),
            elements: Box::new(move || self.elements(&spec.name, &spec.shape)),
        };
        self.config.tensors().into_iter().map(weight).collect()
    }

    fn check(&self) -> Result<(), WriteError> {
        if self.config.vocabulary >= Self::MIN_VOCABULARY {
            return Ok(());
        }
        let what = format!("a vocabulary of {}", self.config.vocabulary);
        Err(WriteError::Inexpressible { what, possible: "at least 288 tokens" })
    }
}
