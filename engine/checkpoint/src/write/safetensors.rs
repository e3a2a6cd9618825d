//! `model.safetensors`, or shards with their index.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use serde_json::json;

use super::WriteError;
use crate::DType;

/// A tensor whose elements are made when they are written, so that one at a time is in memory.
pub(crate) struct Weight<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) elements: Box<dyn Fn() -> Vec<f32> + 'a>,
}

/// Writes `weights` in `dtype` (F32, F16 or BF16). More than one shard come with an index.
pub(crate) fn write_weights(
    directory: &Path,
    weights: Vec<Weight<'_>>,
    dtype: DType,
    shards: usize,
) -> Result<(), WriteError> {
    let encoding = Encoding::new(dtype)?;
    if shards <= 1 {
        return write_file(&directory.join("model.safetensors"), weights, encoding);
    }
    let per_shard = weights.len().div_ceil(shards).max(1);
    let mut weight_map = BTreeMap::new();
    let mut weights = weights.into_iter().peekable();
    for shard in 1..=shards {
        let file = format!("model-{shard:05}-of-{shards:05}.safetensors");
        let some: Vec<Weight<'_>> = weights.by_ref().take(per_shard).collect();
        weight_map.extend(some.iter().map(|weight| (weight.name.clone(), file.clone())));
        write_file(&directory.join(&file), some, encoding)?;
    }
    let index = json!({ "metadata": {}, "weight_map": weight_map });
    let path = directory.join("model.safetensors.index.json");
    std::fs::write(&path, index.to_string()).map_err(WriteError::io(&path))
}

fn write_file(path: &Path, weights: Vec<Weight<'_>>, encoding: Encoding) -> Result<(), WriteError> {
    let views = weights.into_iter().map(|weight| (weight.name.clone(), Encoded { weight, encoding }));
    safetensors::serialize_to_file(views, None, path)
        .map_err(|source| WriteError::Safetensors { path: path.to_path_buf(), source })
}

#[derive(Clone, Copy)]
enum Encoding {
    F32,
    F16,
    BF16,
}

impl Encoding {
    fn new(dtype: DType) -> Result<Self, WriteError> {
        match dtype {
            DType::F32 => Ok(Self::F32),
            DType::F16 => Ok(Self::F16),
            DType::BF16 => Ok(Self::BF16),
            other => Err(WriteError::dtype(other, "F32, F16 and BF16")),
        }
    }

    fn encode(self, elements: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => elements.iter().flat_map(|element| element.to_le_bytes()).collect(),
            Self::F16 => elements.iter().flat_map(|element| f16::from_f32(*element).to_le_bytes()).collect(),
            Self::BF16 => {
                elements.iter().flat_map(|element| bf16::from_f32(*element).to_le_bytes()).collect()
            }
        }
    }
}

struct Encoded<'a> {
    weight: Weight<'a>,
    encoding: Encoding,
}

impl safetensors::View for Encoded<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        match self.encoding {
            Encoding::F32 => safetensors::Dtype::F32,
            Encoding::F16 => safetensors::Dtype::F16,
            Encoding::BF16 => safetensors::Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.weight.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.encoding.encode(&(self.weight.elements)()))
    }

    fn data_len(&self) -> usize {
        let width = if matches!(self.encoding, Encoding::F32) { 4 } else { 2 };
        self.weight.shape.iter().product::<usize>() * width
    }
}
