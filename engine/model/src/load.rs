//! From a checkpoint to a backend.

use shoal_checkpoint::{Checkpoint, CheckpointError, ErrorClass, ModelConfig, TensorError};

use crate::fast::FastBackend;
use crate::reference::ReferenceBackend;
use crate::{ArenaError, Backend, KvDtype, KvGeometry, PageArena};

/// Arithmetic of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compute {
    /// Weights in their file's format, 8-bit activations where they are quantized, f16 keys and values.
    #[default]
    Fast,
    /// Everything in f32, in the plainest way: the oracle.
    Reference,
}

/// Size of the KV memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvMemory {
    Pages(usize),
    /// As many whole pages as fit in these bytes.
    Bytes(u64),
}

/// How to load.
pub struct LoadOptions<'a> {
    pub compute: Compute,
    /// 1 computes on the calling thread.
    pub threads: usize,
    pub kv: KvMemory,
    /// [`KvGeometry::PAGE_TOKENS`] unless a test wants smaller pages.
    pub page_tokens: usize,
    /// Told (bytes loaded, bytes in all) after each tensor.
    pub progress: &'a dyn Fn(u64, u64),
}

impl std::fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions")
            .field("compute", &self.compute)
            .field("threads", &self.threads)
            .field("kv", &self.kv)
            .field("page_tokens", &self.page_tokens)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Tensor(#[from] TensorError),
    #[error("tensor {name} has shape {found:?}; {expected:?} is needed")]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize> },
    #[error("tensor {name} has {found} bytes; its shape and type need {expected}")]
    Size { name: String, expected: usize, found: usize },
    #[error("{field} is {found}; allowed: {allowed}")]
    Option { field: &'static str, found: String, allowed: String },
    #[error(transparent)]
    Arena(#[from] ArenaError),
    #[error("cannot start {threads} threads: {source}")]
    Threads { threads: usize, source: rayon::ThreadPoolBuildError },
}

impl LoadError {
    /// Whether trying again can help.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Checkpoint(error) => error.class(),
            Self::Tensor(_) | Self::Shape { .. } | Self::Size { .. } | Self::Option { .. } => {
                ErrorClass::Invalid
            }
            Self::Arena(ArenaError::TooLarge { .. }) => ErrorClass::Invalid,
            Self::Arena(ArenaError::Map { .. }) | Self::Threads { .. } => ErrorClass::Transient,
        }
    }

    fn option(field: &'static str, found: &dyn ToString, allowed: &dyn ToString) -> Self {
        Self::Option { field, found: found.to_string(), allowed: allowed.to_string() }
    }
}

const MAX_THREADS: usize = 256;
const MAX_PAGE_TOKENS: usize = 1024;

/// Loads a model. The checkpoint is not needed afterwards.
pub fn load(checkpoint: &Checkpoint, options: &LoadOptions<'_>) -> Result<Box<dyn Backend>, LoadError> {
    let config = checkpoint.config();
    check(config, options)?;
    let dtype = match options.compute {
        Compute::Fast => KvDtype::F16,
        Compute::Reference => KvDtype::F32,
    };
    let geometry = KvGeometry {
        layers: config.layers,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        page_tokens: options.page_tokens,
        dtype,
    };
    let arena = PageArena::new(pages(options.kv, &geometry)?, geometry.page_bytes())?;
    match options.compute {
        Compute::Fast => Ok(Box::new(FastBackend::load(checkpoint, options, geometry, arena)?)),
        Compute::Reference => Ok(Box::new(ReferenceBackend::load(checkpoint, options, geometry, arena)?)),
    }
}

fn check(config: &ModelConfig, options: &LoadOptions<'_>) -> Result<(), LoadError> {
    if !(1..=MAX_THREADS).contains(&options.threads) {
        return Err(LoadError::option("threads", &options.threads, &format_args!("1 to {MAX_THREADS}")));
    }
    if !(1..=MAX_PAGE_TOKENS).contains(&options.page_tokens) {
        return Err(LoadError::option(
            "page tokens",
            &options.page_tokens,
            &format_args!("1 to {MAX_PAGE_TOKENS}"),
        ));
    }
    if config.kv_heads == 0 || !config.heads.is_multiple_of(config.kv_heads) {
        let allowed = format!("divisors of the {} heads", config.heads);
        return Err(LoadError::option("number of kv heads", &config.kv_heads, &allowed));
    }
    if config.head_dim == 0 || !config.head_dim.is_multiple_of(2) {
        return Err(LoadError::option("head dimension", &config.head_dim, &"even numbers above 0"));
    }
    Ok(())
}

fn pages(kv: KvMemory, geometry: &KvGeometry) -> Result<usize, LoadError> {
    let page_bytes = geometry.page_bytes() as u64;
    let pages = match kv {
        KvMemory::Pages(pages) => pages as u64,
        KvMemory::Bytes(bytes) => bytes / page_bytes,
    };
    let allowed = || format!("1 page ({page_bytes} bytes) to {} pages", u32::MAX);
    if pages == 0 || pages > u64::from(u32::MAX) {
        return Err(LoadError::option("kv memory", &format_args!("{kv:?}"), &allowed()));
    }
    Ok(pages as usize)
}
