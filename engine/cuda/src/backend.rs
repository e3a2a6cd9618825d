//! The model as the scheduler knows it, and the host's copy of the pages that travel.

use std::sync::Arc;

use half::bf16;
use half::slice::HalfFloatSliceExt as _;
use shoal_checkpoint::{Checkpoint, ModelConfig};
use shoal_kernels::{LaunchError, PAGE_TOKENS, Pinned};
use shoal_model::{Backend, BackendError, KvDtype, KvGeometry, PageArena, SequenceRows};

use crate::{CudaModel, CudaOptions, LoadError, StepError};

/// The decoder on one GPU behind the scheduler. Pages are computed on the device; the arena is host memory in
/// which a page takes room from when it first travels.
#[derive(Debug)]
pub struct CudaBackend {
    model: CudaModel,
    geometry: KvGeometry,
    arena: Arc<PageArena>,
    /// One page on its way.
    page: Pinned<bf16>,
}

impl CudaBackend {
    pub fn load(checkpoint: &Checkpoint, options: &CudaOptions<'_>) -> Result<Self, LoadError> {
        Self::over(CudaModel::load(checkpoint, options)?)
    }

    /// Serves a loaded model.
    pub fn over(model: CudaModel) -> Result<Self, LoadError> {
        let ModelConfig { layers, kv_heads, head_dim, .. } = *model.config();
        let geometry =
            KvGeometry { layers, kv_heads, head_dim, page_tokens: PAGE_TOKENS, dtype: KvDtype::Bf16 };
        let arena = PageArena::new(model.memory().pages, geometry.page_bytes())?;
        let page = Pinned::new(model.gpu(), geometry.page_bytes() / size_of::<bf16>())?;
        Ok(Self { model, geometry, arena, page })
    }

    /// What it serves.
    pub fn model(&self) -> &CudaModel {
        &self.model
    }

    fn publish_page(&mut self, number: u32) -> Result<(), BackendError> {
        let Self { model, arena, page, .. } = self;
        let mut target = arena.write(number).ok_or(BackendError::PageBusy { page: number })?;
        let len = page.len();
        page.receive(&model.queue, model.pages(), number as usize * len, len).map_err(lost)?;
        let halves = page.get().map_err(lost)?.reinterpret_cast();
        for (bytes, half) in target.as_chunks_mut().0.iter_mut().zip(halves) {
            *bytes = half.to_ne_bytes();
        }
        Ok(())
    }

    fn adopt_page(&mut self, number: u32) -> Result<(), BackendError> {
        let Self { model, arena, page, .. } = self;
        let source = arena.read(number).ok_or(BackendError::PageBusy { page: number })?;
        let halves = page.get_mut().map_err(lost)?.reinterpret_cast_mut();
        for (half, bytes) in halves.iter_mut().zip(source.as_chunks().0) {
            *half = u16::from_ne_bytes(*bytes);
        }
        let len = page.len();
        let pages = model.runner.pages.buffer_mut();
        page.send(&model.queue, pages, number as usize * len, len).map_err(lost)
    }
}

impl Backend for CudaBackend {
    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn geometry(&self) -> &KvGeometry {
        &self.geometry
    }

    fn arena(&self) -> &Arc<PageArena> {
        &self.arena
    }

    fn numerics(&self) -> &'static str {
        "cuda"
    }

    fn forward(&mut self, batch: &[SequenceRows<'_>], logits: &mut Vec<f32>) -> Result<(), BackendError> {
        self.forward_beside(batch, logits, &mut || {})
    }

    fn forward_beside(
        &mut self,
        batch: &[SequenceRows<'_>],
        logits: &mut Vec<f32>,
        beside: &mut dyn FnMut(),
    ) -> Result<(), BackendError> {
        self.model.forward_beside(batch, logits, beside).map_err(|error| match error {
            StepError::Empty { sequence } => BackendError::Empty { sequence },
            StepError::Token { token, vocabulary } => BackendError::Token { token, vocabulary },
            StepError::Pages { tokens, start, needed, given } => {
                BackendError::Pages { tokens, start, needed, given }
            }
            other => BackendError::Device(other.to_string()),
        })
    }

    fn draws(&self) -> bool {
        true
    }

    fn drawn(&self) -> &[u32] {
        self.model.drawn()
    }

    fn publish(&mut self, pages: &[u32]) -> Result<(), BackendError> {
        pages.iter().try_for_each(|page| self.publish_page(*page))
    }

    fn adopt(&mut self, pages: &[u32]) -> Result<(), BackendError> {
        pages.iter().try_for_each(|page| self.adopt_page(*page))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn lost(error: LaunchError) -> BackendError {
    BackendError::Device(error.to_string())
}
