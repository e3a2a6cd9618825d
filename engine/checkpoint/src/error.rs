//! What can be wrong with a model file, in terms of the key or tensor that a person would look for.

use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path}: {part} {problem}")]
    Malformed { path: PathBuf, part: Part, problem: Problem },
    /// A name that the file does not have.
    #[error("there is no tensor {name}")]
    NoSuchTensor { name: String },
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The file must change first.
    Invalid,
    /// The storage failed, not the file.
    Transient,
}

impl CheckpointError {
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound
                | std::io::ErrorKind::PermissionDenied
                | std::io::ErrorKind::NotADirectory
                | std::io::ErrorKind::IsADirectory => ErrorClass::Invalid,
                _ => ErrorClass::Transient,
            },
            Self::Malformed { .. } | Self::NoSuchTensor { .. } => ErrorClass::Invalid,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// Which part of a file is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Header(&'static str),
    /// Metadata key or JSON field.
    Key(String),
    Tensor(String),
    /// The file as a whole.
    File,
}

impl Part {
    pub(crate) fn key(name: impl Into<String>) -> Self {
        Self::Key(name.into())
    }

    pub(crate) fn tensor(name: impl Into<String>) -> Self {
        Self::Tensor(name.into())
    }

    pub(crate) fn has(self, problem: Problem) -> Fault {
        Fault { part: self, problem }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(field) => write!(f, "header: {field}"),
            Self::Key(key) => write!(f, "key {}", Clipped(key)),
            Self::Tensor(name) => write!(f, "tensor {}", Clipped(name)),
            Self::File => write!(f, "the file"),
        }
    }
}

/// Names come from the file, so a message shows only the beginning of an absurd one.
struct Clipped<'a>(&'a str);

impl fmt::Display for Clipped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 120;
        match self.0.char_indices().nth(SHOWN) {
            None => write!(f, "{}", self.0.escape_debug()),
            Some((end, _)) => write!(f, "{}...", self.0[..end].escape_debug()),
        }
    }
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("is missing")]
    Missing,
    #[error("is cut off: {needed} bytes are needed, {left} are left")]
    Cut { needed: u64, left: u64 },
    #[error("is not UTF-8")]
    NotUtf8,
    #[error("appears twice")]
    Duplicate,
    #[error("has type {found}; {wanted} is needed")]
    Type { found: &'static str, wanted: &'static str },
    #[error("is {found}; allowed: {allowed}")]
    NotAllowed { found: String, allowed: String },
    #[error("is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Problem {
    pub(crate) fn not_allowed(found: impl fmt::Display, allowed: impl fmt::Display) -> Self {
        let found = found.to_string();
        Self::NotAllowed { found: Clipped(&found).to_string(), allowed: allowed.to_string() }
    }
}

/// A problem and its place, before the path is known.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) part: Part,
    pub(crate) problem: Problem,
}

impl Fault {
    pub(crate) fn at(self, path: &Path) -> CheckpointError {
        CheckpointError::Malformed { path: path.to_path_buf(), part: self.part, problem: self.problem }
    }
}
