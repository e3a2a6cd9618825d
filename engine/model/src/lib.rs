//! The decoder and what runs it.
//!
//! ```text
//! Checkpoint ──load──> Backend { forward(batch) -> logits }   one page arena of KV beside it
//! ```
//!
//! A backend computes each row of a batch exactly as if it were alone: batch composition, chunk borders
//! and thread count never change a bit of the result.

mod arena;
mod backend;
mod geometry;

pub use arena::{ArenaError, PageArena, PageRead, PageWrite};
pub use backend::{Backend, BackendError, LogitRows, SequenceRows};
pub use geometry::{KvDtype, KvGeometry, KvPart};
