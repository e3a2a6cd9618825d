//! Why a text step refused, in words for the person who sent the request.

use std::path::PathBuf;

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The request is wrong and stays wrong (400).
    Invalid,
    /// The same request may pass later (503).
    Transient,
}

/// A request's text could not be turned into tokens, or its constraints not into a grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TextError {
    /// The request field at fault, as the client wrote it (`messages[2].content`).
    pub param: Option<String>,
    pub message: String,
    class: ErrorClass,
}

impl TextError {
    pub(super) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), message: message.into(), class: ErrorClass::Invalid }
    }

    pub(super) fn busy(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), message: message.into(), class: ErrorClass::Transient }
    }

    pub fn class(&self) -> ErrorClass {
        self.class
    }
}

/// A model's text side could not be opened; the process cannot serve it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read the model at {path}: {reason}")]
    Checkpoint { path: PathBuf, reason: String },
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    #[error("chat template: {0}")]
    Template(String),
    #[error("grammar engine: {0}")]
    Grammar(String),
}
