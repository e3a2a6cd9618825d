//! Model files, read without trusting them.
//!
//! ```text
//! model.gguf ─────────────┐
//! config.json             ├─> Checkpoint { config, tensors, vocabulary, chat template, digest }
//! *.safetensors (+ index) ┘
//! ```
//!
//! Both containers are memory-mapped and answer by the same tensor names (those of Hugging Face).
//! A hostile file ends in an error that names the tensor or key; nothing is allocated from a length that
//! was not first checked against the file's own size.

mod config;
mod tensor;

pub use config::{Architecture, ModelConfig, Rope, RopeScaling, RopeStyle};
pub use tensor::{DType, TensorView};
