//! Model files, read without trusting them.
//!
//! ```text
//! model.gguf ─────────────┐
//! config.json             ├─> Checkpoint { config, tensors, vocabulary, tokenizer, chat template, digest }
//! *.safetensors (+ index) ┘
//! ```
//!
//! Both containers are memory-mapped and answer by the same tensor names (those of Hugging Face).
//! A hostile file ends in an error that names the tensor or key; nothing is allocated from a length that
//! was not first checked against the file's own size.

mod checkpoint;
mod config;
#[cfg(test)]
mod damage;
mod dequantize;
mod error;
mod export;
mod gguf;
mod huggingface;
mod inventory;
mod limits;
mod mapping;
mod quantize;
mod rope_order;
mod synthetic;
mod tensor;
mod tokenizer;
mod vocabulary;
mod write;

pub use checkpoint::Checkpoint;
pub use config::{Architecture, ModelConfig, Rope, RopeScaling, RopeStyle};
pub use dequantize::{TensorError, dequantize};
pub use error::{CheckpointError, ErrorClass, Part, Problem};
pub use export::export_safetensors;
pub use inventory::TensorSpec;
pub use quantize::quantize;
pub use synthetic::SyntheticModel;
pub use tensor::{DType, TensorView};
pub use tokenizer::{GgufTokenizer, TokenType, TokenizerSource};
pub use vocabulary::Vocabulary;
pub use write::WriteError;
