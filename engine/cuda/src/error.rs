//! What can go wrong at start, and what in a step.

use shoal_checkpoint::{CheckpointError, ErrorClass as FileClass, TensorError};
use shoal_kernels::{ErrorClass, LaunchError, OpenError};
use shoal_model::ArenaError;

/// Why a model cannot be run on this device. Found at start, never in the middle of a request.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Tensor(#[from] TensorError),
    #[error("tensor {name} has shape {found:?}; {expected:?} is needed")]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize> },
    #[error("the GPU cannot run a model whose {field} is {found}; allowed: {allowed}")]
    Unsupported { field: &'static str, found: usize, allowed: &'static str },
    #[error("{field} is {found}; allowed: {allowed}")]
    Option { field: &'static str, found: usize, allowed: String },
    #[error("too little GPU memory: {0}")]
    Memory(#[from] MemoryLack),
    #[error(transparent)]
    Arena(#[from] ArenaError),
    #[error("device: {0}")]
    Device(#[from] LaunchError),
}

/// How much is missing, and what would fit.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} takes {:.2} GiB and {:.2} GiB are free, so {:.2} GiB are missing; {fits}",
    gib(*.needed), gib(*.free), gib(.needed.saturating_sub(*.free))
)]
pub struct MemoryLack {
    pub what: &'static str,
    pub needed: u64,
    pub free: u64,
    pub fits: String,
}

pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

impl LoadError {
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Checkpoint(error) if error.class() == FileClass::Transient => ErrorClass::Fatal,
            Self::Open(_) | Self::Device(_) | Self::Arena(_) => ErrorClass::Fatal,
            Self::Checkpoint(_)
            | Self::Tensor(_)
            | Self::Shape { .. }
            | Self::Unsupported { .. }
            | Self::Option { .. }
            | Self::Memory(_) => ErrorClass::Invalid,
        }
    }
}

/// Why a step did not run.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("sequence {sequence} of the batch has no tokens")]
    Empty { sequence: usize },
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    Token { token: u32, vocabulary: usize },
    #[error("{tokens} tokens at {start} need {needed} pages; {given} were given")]
    Pages { tokens: usize, start: usize, needed: usize, given: usize },
    #[error("page {page} is not one of the {pages}")]
    Page { page: u32, pages: usize },
    #[error("{found} {what}; a step takes at most {most}")]
    TooMany { what: &'static str, found: usize, most: usize },
    #[error("greedy decoding takes one token of each sequence; sequence {sequence} has {tokens}")]
    NotDecode { sequence: usize, tokens: usize },
    #[error("no greedy decoding was started, or a later step replaced it")]
    NotStarted,
    /// The device is lost; the process must end.
    #[error("device: {0}")]
    Device(#[from] LaunchError),
}

impl StepError {
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Device(error) => error.class(),
            Self::Empty { .. }
            | Self::Token { .. }
            | Self::Pages { .. }
            | Self::Page { .. }
            | Self::TooMany { .. }
            | Self::NotDecode { .. }
            | Self::NotStarted => ErrorClass::Invalid,
        }
    }
}
