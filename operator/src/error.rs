//! What kind of trouble an error is, which alone decides what follows.

use std::time::Duration;

/// One answer per error, wherever it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The object must change; trying again is of no use.
    Invalid,
    /// It may work later.
    Transient,
    /// What was decided on is out of date: look again at once.
    Conflict,
    /// This process can do nothing more.
    Fatal,
}

impl Class {
    /// For metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Transient => "transient",
            Self::Conflict => "conflict",
            Self::Fatal => "fatal",
        }
    }
}

/// A call to the API server that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("this process does not hold the lease: nothing is written")]
    NotLeader,
    #[error("{verb} {kind}: no answer within {limit:?}")]
    Timeout { verb: &'static str, kind: &'static str, limit: Duration },
    #[error("{verb} {kind}: {}", told(source))]
    Api {
        verb: &'static str,
        kind: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
}

impl CallError {
    pub fn class(&self) -> Class {
        match self {
            Self::NotLeader | Self::Timeout { .. } => Class::Transient,
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => {
                    Class::Conflict
                }
                // The server understood and refuses what was sent: only another spec sends something else.
                kube::Error::Api(status) if status.is_invalid() => Class::Invalid,
                _ => Class::Transient,
            },
        }
    }

    /// The API server's refusal for want of a permission or a quota, which a person has to see.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                // A namespace on its way out takes nothing new, and nobody has to do anything about it.
                kube::Error::Api(status) if ends(status) => None,
                kube::Error::Api(status) if status.is_forbidden() || status.is_invalid() => {
                    Some(&status.message)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// What happened to the call, for metric labels.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::NotLeader => "not_leader",
            Self::Timeout { .. } => "timeout",
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_already_exists() => "exists",
                kube::Error::Api(status) if status.is_conflict() => "conflict",
                kube::Error::Api(status) if status.is_not_found() => "not_found",
                kube::Error::Api(status) if status.is_forbidden() => "forbidden",
                kube::Error::Api(status) if status.is_invalid() => "invalid",
                _ => "error",
            },
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.outcome() == "not_found"
    }

    pub fn already_exists(&self) -> bool {
        self.outcome() == "exists"
    }
}

/// The server's own words, without the structure that they came in.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

/// Whether the server refuses because the namespace is being deleted.
fn ends(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
