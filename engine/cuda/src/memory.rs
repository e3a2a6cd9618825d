//! How much device memory a model needs, decided before anything is allocated.

use shoal_checkpoint::ModelConfig;
use shoal_kernels::{KvPages, PAGE_TOKENS};
use shoal_model::KvMemory;

use crate::error::{MemoryLack, gib};
use crate::model::CudaOptions;
use crate::{LoadError, buckets};

/// Bytes left to the driver: its code, the library's handle, graphs, and allocations rounded up.
const RESERVE: u64 = 1 << 30;
const BF16: u64 = 2;
const F32: u64 = 4;

/// Bytes by use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    pub weights: u64,
    /// Activations, logits, inputs, rope tables.
    pub working: u64,
    pub page_bytes: u64,
    pub pages: usize,
}

impl MemoryPlan {
    pub(crate) fn new(config: &ModelConfig, options: &CudaOptions<'_>, free: u64) -> Result<Self, LoadError> {
        let weights = config.tensors().iter().map(|t| t.shape.iter().product::<usize>() as u64 * BF16).sum();
        let working = working(config, options);
        let dims = [config.layers, config.kv_heads, config.head_dim];
        let page_bytes = KvPages::<crate::runner::Kv>::page_elements(dims[0], dims[1], dims[2]) as u64 * BF16;
        let fixed = weights + working + RESERVE;
        let left = free.saturating_sub(fixed);
        let room = usize::try_from(left / page_bytes).unwrap_or(usize::MAX);
        if free < fixed + page_bytes {
            let fits = format!(
                "weights take {:.2} GiB and working memory {:.2}; a smaller model or fewer tokens in a step would fit",
                gib(weights),
                gib(working)
            );
            return Err(MemoryLack {
                what: "the model with one page",
                needed: fixed + page_bytes,
                free,
                fits,
            }
            .into());
        }
        let pages = match options.kv {
            KvMemory::Pages(pages) => pages,
            KvMemory::Bytes(bytes) => usize::try_from(bytes / page_bytes).unwrap_or(usize::MAX),
        };
        if pages == 0 {
            let allowed = format!("at least {page_bytes} bytes, one page");
            return Err(LoadError::Option { field: "KV memory", found: 0, allowed });
        }
        if pages > room {
            let needed = fixed + pages as u64 * page_bytes;
            let fits = format!("{room} pages ({} tokens) fit instead of {pages}", room * PAGE_TOKENS);
            return Err(MemoryLack { what: "the model with its pages", needed, free, fits }.into());
        }
        Ok(Self { weights, working, page_bytes, pages })
    }
}

fn working(config: &ModelConfig, options: &CudaOptions<'_>) -> u64 {
    let rows = buckets::rows(options.max_tokens) as u64;
    let sequences = buckets::rows(options.max_sequences) as u64;
    let widths = Widths::of(config);
    let row = widths.row() as u64 * BF16;
    let logits = sequences * config.vocabulary as u64 * F32 + sequences * config.hidden as u64 * BF16;
    let rope = (options.max_context * config.head_dim) as u64 * F32;
    let table = sequences * options.max_context.div_ceil(PAGE_TOKENS) as u64 * 8;
    rows * row + logits + rope + table
}

/// Elements of a row of each activation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Widths {
    pub(crate) hidden: usize,
    pub(crate) query: usize,
    pub(crate) qkv: usize,
    pub(crate) ffn: usize,
}

impl Widths {
    pub(crate) fn of(config: &ModelConfig) -> Self {
        let query = config.heads * config.head_dim;
        let qkv = query + 2 * config.kv_heads * config.head_dim;
        Self { hidden: config.hidden, query, qkv, ffn: config.ffn }
    }

    /// Residual, normed, qkv, queries, attended, gate and up, activation.
    fn row(self) -> usize {
        2 * self.hidden + self.qkv + 2 * self.query + 3 * self.ffn
    }
}

#[cfg(test)]
mod tests {
    use shoal_checkpoint::SyntheticModel;

    use super::*;

    fn plan(kv: KvMemory, free: u64) -> Result<MemoryPlan, LoadError> {
        let options = CudaOptions { kv, ..CudaOptions::default() };
        MemoryPlan::new(&SyntheticModel::wide().config, &options, free)
    }

    #[test]
    fn too_little_memory_names_what_is_missing_and_what_fits() {
        let error = plan(KvMemory::Pages(4), 1 << 20).expect_err("a MiB is too little").to_string();
        assert!(error.contains("GiB are missing") && error.contains("smaller model"), "{error}");
        let error = plan(KvMemory::Pages(1 << 20), 4 << 30).expect_err("too many pages").to_string();
        assert!(error.contains("fit instead of 1048576"), "{error}");
    }

    #[test]
    fn pages_by_bytes_are_whole() {
        let page = plan(KvMemory::Pages(1), 8 << 30).expect("fits").page_bytes;
        assert_eq!(plan(KvMemory::Bytes(3 * page + 1), 8 << 30).expect("fits").pages, 3);
        assert!(plan(KvMemory::Bytes(page - 1), 8 << 30).is_err());
    }
}
