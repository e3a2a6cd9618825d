//! The contract between the scheduler and whatever computes.

use std::sync::Arc;

use shoal_checkpoint::ModelConfig;

use crate::{KvGeometry, PageArena};

/// Which logits a sequence needs after this step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LogitRows {
    /// None: the chunk is not the last one of its prompt.
    None,
    /// One row, of the last token.
    Last,
    /// None, but a token drawn from those of the last one, by a backend that [draws](Backend::draws).
    Drawn(Draw),
}

/// A draw from the softmax of a row of logits, which is the same for the same three numbers and logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// 0 takes the largest logit, the lowest id of equals.
    pub temperature: f32,
    pub seed: u64,
    /// Which draw of its seed it is.
    pub index: u32,
}

/// Part of one sequence in a batch: `tokens` at positions `start..start + tokens.len()`.
///
/// `pages[p]` is the arena index of the page that holds positions `p × page_tokens ..`; there are enough of
/// them for the last position. Keys and values of `0..start` are in them already; the step writes those of
/// its own tokens. No other sequence of the batch writes a page that this one reads.
#[derive(Debug, Clone, Copy)]
pub struct SequenceRows<'a> {
    pub tokens: &'a [u32],
    pub start: usize,
    pub pages: &'a [u32],
    pub logits: LogitRows,
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("sequence {sequence} of the batch has no tokens")]
    Empty { sequence: usize },
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    Token { token: u32, vocabulary: usize },
    #[error("{tokens} tokens at {start} need {needed} pages; {given} were given")]
    Pages { tokens: usize, start: usize, needed: usize, given: usize },
    /// The caller broke the sharing rule of [`SequenceRows`].
    #[error("page {page} is held by someone else")]
    PageBusy { page: u32 },
    /// The device is lost; the process must end.
    #[error("device: {0}")]
    Device(String),
}

pub trait Backend: Send {
    fn config(&self) -> &ModelConfig;
    fn geometry(&self) -> &KvGeometry;
    /// The KV pages as the transfer threads see them. A backend with memory of its own computes on that instead,
    /// and copies between the two when it is told to.
    fn arena(&self) -> &Arc<PageArena>;
    /// Name of the arithmetic in the layout fingerprint: "reference", "fast" or "cuda".
    fn numerics(&self) -> &'static str;
    /// Computes one step. `logits` is cleared, then filled with one vocabulary-wide row per sequence that
    /// asked for one, in batch order.
    fn forward(&mut self, batch: &[SequenceRows<'_>], logits: &mut Vec<f32>) -> Result<(), BackendError>;

    /// As [`Self::forward`]; `beside` runs once, beside the step if that needs the host no more, else before it.
    fn forward_beside(
        &mut self,
        batch: &[SequenceRows<'_>],
        logits: &mut Vec<f32>,
        beside: &mut dyn FnMut(),
    ) -> Result<(), BackendError> {
        beside();
        self.forward(batch, logits)
    }

    /// Whether it draws tokens itself, so that their logits need not be looked at.
    fn draws(&self) -> bool {
        false
    }

    /// What the last step drew, in batch order; a token outside the vocabulary where no logit was a number.
    fn drawn(&self) -> &[u32] {
        &[]
    }

    /// Copies pages that were computed into the arena, from where they are sent.
    fn publish(&mut self, _pages: &[u32]) -> Result<(), BackendError> {
        Ok(())
    }

    /// Copies pages that a peer filled out of the arena; no transfer writes them any more.
    fn adopt(&mut self, _pages: &[u32]) -> Result<(), BackendError> {
        Ok(())
    }
}
