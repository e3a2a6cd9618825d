//! Writing the formats that this crate reads. Used for synthetic models and for converting a checkpoint;
//! files come out the same, byte for byte, for the same input.

mod config_json;
mod gguf;
mod safetensors;
mod tokenizer_json;

use std::path::PathBuf;

pub(crate) use config_json::config_json;
pub(crate) use gguf::{GgufWriter, MetadataValue};
pub(crate) use safetensors::{Weight, write_weights};
pub(crate) use tokenizer_json::tokenizer_json;

use crate::{CheckpointError, DType, ErrorClass, TensorError};

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("cannot write {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("cannot write {path}: {source}")]
    Safetensors { path: PathBuf, source: ::safetensors::SafeTensorError },
    #[error("{what} cannot be written in this format; possible: {possible}")]
    Inexpressible { what: String, possible: &'static str },
    #[error(transparent)]
    Read(#[from] CheckpointError),
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl WriteError {
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io { .. } | Self::Safetensors { .. } => ErrorClass::Transient,
            Self::Inexpressible { .. } | Self::Tensor(_) => ErrorClass::Invalid,
            Self::Read(error) => error.class(),
        }
    }

    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn dtype(dtype: DType, possible: &'static str) -> Self {
        Self::Inexpressible { what: format!("{dtype:?}"), possible }
    }
}
