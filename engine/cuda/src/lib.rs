//! The decoder on one GPU.
//!
//! ```text
//! Checkpoint ──pinned staging──> weights (bf16)      pages: one plain allocation, in the layout of transfer
//!                                     │                   │
//! SequenceRows ──one copy──> inputs ──┴── layers ──┬── logits ──> host      (for requests that need them)
//!                                                  └── draw ──> ids ──> host
//! ```
//!
//! A step of one token for each sequence is a graph per batch size, and leaves the inputs of the next step in place.
//!
//! A step's rows go through the same kernels whether they decode or prefill, except for attention. Results
//! do not depend on which pages hold a sequence; they may differ in the last bits between batch sizes,
//! because the matrix library chooses its algorithm by size. Device errors are fatal: the context is lost
//! and the process must end.

mod backend;
mod buckets;
mod choice;
mod error;
mod greedy;
mod inputs;
mod memory;
mod model;
mod profile;
mod rope;
mod runner;
mod scratch;
mod slate;
mod support;
mod tune;
mod weights;

pub use backend::CudaBackend;
pub use choice::{Products, Ways};
pub use error::{LoadError, StepError};
pub use memory::MemoryPlan;
pub use model::{CudaModel, CudaOptions};
pub use profile::{Part, PartTime};
