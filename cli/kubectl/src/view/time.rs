//! Times of API objects. Their crate carries a jiff of its own.

use jiff::Timestamp;

/// The Unix epoch if out of range.
pub(crate) fn at(time: k8s_openapi::jiff::Timestamp) -> Timestamp {
    Timestamp::from_nanosecond(time.as_nanosecond()).unwrap_or(Timestamp::UNIX_EPOCH)
}
