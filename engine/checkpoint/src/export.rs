//! Conversion of an opened checkpoint to a Hugging Face directory.

use std::path::Path;

use serde_json::json;

use crate::rope_order::to_half;
use crate::write::{self, Weight, WriteError};
use crate::{Checkpoint, DType, Rope, RopeStyle, TokenizerSource, dequantize};

/// Writes `config.json`, `tokenizer.json`, `tokenizer_config.json` and `model.safetensors` with the weights
/// in `dtype` (F32, F16 or BF16). Rows that GGUF reordered for interleaved rope go back to their place.
pub fn export_safetensors(checkpoint: &Checkpoint, directory: &Path, dtype: DType) -> Result<(), WriteError> {
    std::fs::create_dir_all(directory).map_err(WriteError::io(directory))?;
    let mut config = checkpoint.config().clone();
    config.rope = Rope { style: RopeStyle::Half, ..config.rope };
    let tokenizer = match checkpoint.tokenizer() {
        TokenizerSource::Json(text) => text,
        TokenizerSource::Gguf(tokenizer) => write::tokenizer_json(&tokenizer)?.to_string(),
    };
    let files = [
        ("config.json", write::config_json(&config, dtype)?.to_string()),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", json!({ "chat_template": checkpoint.chat_template() }).to_string()),
    ];
    for (name, content) in files {
        let path = directory.join(name);
        std::fs::write(&path, content).map_err(WriteError::io(&path))?;
    }
    write::write_weights(directory, weights(checkpoint)?, dtype, 1)
}

fn weights(checkpoint: &Checkpoint) -> Result<Vec<Weight<'_>>, WriteError> {
    let config = checkpoint.config();
    let mut weights = Vec::new();
    for spec in config.tensors() {
        let view = checkpoint.tensor(&spec.name)?;
        let turned = spec.name.ends_with("q_proj.weight") || spec.name.ends_with("k_proj.weight");
        let interleaved = turned && config.rope.style == RopeStyle::Interleaved;
        let elements = move || {
            let mut elements = vec![0.0; view.shape.iter().product()];
            dequantize(view.dtype, view.bytes, &mut elements);
            if interleaved { to_half(&elements, config.head_dim, config.hidden) } else { elements }
        };
        weights.push(Weight { name: spec.name, shape: spec.shape, elements: Box::new(elements) });
    }
    Ok(weights)
}
