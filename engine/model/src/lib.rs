//! The decoder and what runs it.
//!
//! ```text
//! Checkpoint ──load──> Backend { forward(batch) -> logits }   one page arena of KV beside it
//! ```
//!
//! A backend computes each row of a batch exactly as if it were alone: batch composition, chunk borders
//! and thread count never change a bit of the result.

mod arena;
mod attention;
mod backend;
mod fast;
mod geometry;
mod load;
mod matrix;
mod reference;
mod rope;
mod simd;
mod step;
mod team;
mod weights;

pub use arena::{ArenaError, PageArena, PageRead, PageWrite};
pub use backend::{Backend, BackendError, Draw, LogitRows, SequenceRows};
pub use geometry::{KvDtype, KvGeometry, KvPart};
pub use load::{Compute, KvMemory, LoadError, LoadOptions, load};
pub use rope::RopeFrequencies;
