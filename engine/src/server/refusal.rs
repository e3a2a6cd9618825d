//! Refusals as gRPC statuses, with a reason that machines can read.

use shoal_wire::rpc::Fingerprint;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::grammar::GrammarError;
use crate::request::{Class, Refusal};
use crate::sampling::SamplingError;
use crate::scheduler::ControlError;

/// Metadata key of the reason: `role`, `draining`, `queue_full`, `too_long`, `fingerprint`, `epoch`,
/// `aborted`, `stopped`, `transfer`, `slow_reader` or `invalid`.
pub const REASON: &str = "shoal-reason";

pub(super) fn status(code: Code, reason: &'static str, message: impl Into<String>) -> Status {
    let mut status = Status::new(code, message);
    status.metadata_mut().insert(REASON, MetadataValue::from_static(reason));
    status
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, reason) = match &refusal {
            Refusal::QueueFull { .. } => (Code::ResourceExhausted, "queue_full"),
            Refusal::Role { .. } => (Code::FailedPrecondition, "role"),
            Refusal::Draining => (Code::FailedPrecondition, "draining"),
            Refusal::TooLong { .. } => (Code::InvalidArgument, "too_long"),
            Refusal::Empty | Refusal::Token { .. } => (Code::InvalidArgument, "invalid"),
            Refusal::Stopped(_) => (Code::Unavailable, "stopped"),
        };
        status(code, reason, refusal.to_string())
    }
}

impl From<ControlError> for Status {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::StaleEpoch { .. } => status(Code::FailedPrecondition, "epoch", error.to_string()),
            ControlError::Stopped => status(Code::Unavailable, "stopped", error.to_string()),
        }
    }
}

impl From<SamplingError> for Status {
    fn from(error: SamplingError) -> Self {
        status(Code::InvalidArgument, "invalid", error.to_string())
    }
}

/// Of a reference, because the error that kept the tables from being built is shown to everybody who asks.
pub(super) fn grammar_status(error: &GrammarError) -> Status {
    let code = if error.class() == Class::Invalid { Code::InvalidArgument } else { Code::Internal };
    status(code, "invalid", error.to_string())
}

pub(super) fn check_fingerprint(ours: &Fingerprint, theirs: &Fingerprint) -> Result<(), Status> {
    ours.check(theirs).map_err(|mismatch| {
        status(Code::FailedPrecondition, "fingerprint", format!("no KV page may move between us: {mismatch}"))
    })
}

pub(super) fn aborted() -> Status {
    status(Code::Aborted, "aborted", "the request was aborted")
}
