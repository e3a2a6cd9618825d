//! The shell's clock, and the times of API objects as the planner's.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Now, in whole seconds, as API objects hold times.
pub fn now() -> Timestamp {
    at(Timestamp::now().as_second())
}

pub fn of(time: &Time) -> Timestamp {
    at(shoal_crds::unix_seconds(time))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}
