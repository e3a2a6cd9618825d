//! Why a request could not be served, and what an engine's refusal means for routing.

use std::error::Error as _;

use tonic::{Code, Status};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("{0}")]
    Invalid(String),
    #[error("every decode instance's queue is full")]
    QueueFull,
    #[error("no decode instance is available")]
    NoInstance,
    #[error("the decode instances are failing and the retry budget is spent")]
    BudgetSpent,
    #[error("the request did not finish within its time")]
    Timeout,
    #[error("two instances died while they ran this request; it is not tried on a third")]
    Poisoned,
    #[error("the instance that ran this request was lost, and no other took it over in time")]
    NotTakenOver,
    #[error("a repeated choice gave other tokens than before; it cannot be continued")]
    Diverged,
    #[error("the engine failed: {0}")]
    Engine(String),
    #[error("this gateway is shutting down")]
    Stopping,
}

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The request is wrong and stays wrong.
    Invalid,
    /// The same request may pass later.
    Transient,
    /// This request ended; nothing is known about the next.
    Fatal,
}

impl SessionError {
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Invalid(_) => ErrorClass::Invalid,
            Self::QueueFull
            | Self::NoInstance
            | Self::BudgetSpent
            | Self::Timeout
            | Self::NotTakenOver
            | Self::Stopping => ErrorClass::Transient,
            Self::Poisoned | Self::Diverged | Self::Engine(_) => ErrorClass::Fatal,
        }
    }
}

/// What a gRPC status of `Generate` says about instance and request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another instance may have room.
    QueueFull,
    /// Another role by now, draining, or stopping: not an error, only the wrong address.
    Moved,
    /// The connection broke or the process is gone.
    Lost(String),
    /// The engine answered that it cannot.
    Failed(String),
    /// The request is at fault, wherever it runs.
    Final(SessionError),
}

impl Verdict {
    pub(super) fn of(status: &Status) -> Self {
        let message = || status.message().to_owned();
        // Statuses made on this side of the connection carry the transport's error; received ones do not.
        if status.source().is_some() {
            return Self::Lost(message());
        }
        match status.code() {
            Code::ResourceExhausted => Self::QueueFull,
            Code::FailedPrecondition | Code::Unavailable | Code::Aborted | Code::Cancelled => Self::Moved,
            Code::InvalidArgument | Code::OutOfRange => Self::Final(SessionError::Invalid(message())),
            Code::DeadlineExceeded => Self::Final(SessionError::Timeout),
            Code::Unauthenticated | Code::PermissionDenied => Self::Final(SessionError::Engine(
                "the engine does not accept this gateway's secret".to_owned(),
            )),
            _ => Self::Failed(message()),
        }
    }
}
