//! What went wrong, for the person at the terminal, and the exit code that says so to a script.

use std::fmt::Display;

/// Who can do something about it; each kind has its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something failed that may work next time.
    Failed = 1,
    /// The command line or the manifest is wrong.
    Invalid = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// Something else holds what is needed: another `shoal up`, a port.
    Conflict = 4,
}

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: Kind,
    message: String,
}

impl Failure {
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self { kind: Kind::Invalid, message: message.into() }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self { kind: Kind::NotFound, message: message.into() }
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self { kind: Kind::Conflict, message: message.into() }
    }
}

/// Says what was being attempted when something below failed.
pub trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Display> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::failed(format!("{}: {error}", what())))
    }
}
