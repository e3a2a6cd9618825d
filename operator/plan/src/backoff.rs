//! Pauses between restarts of a crashed process: doubling from one second to five minutes.
//!
//! The history travels with the instance, in what is observed, so that a planner that was itself restarted
//! waits as long as one that was not. Jitter comes from a hash of name and attempt, not from chance: the
//! same crash always waits the same time, different instances wait different times.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::timing::{BACKOFF_FIRST, BACKOFF_LONGEST, HEALTHY_RESET};

/// Crashes in a row, kept by the host beside the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CrashHistory {
    /// Crashes since the instance was last healthy for `HEALTHY_RESET`.
    pub count: u32,
}

impl CrashHistory {
    /// The history after a crash at `at` of a process that was ready since `ready_since`, if it ever was.
    #[must_use]
    pub fn after_crash(self, ready_since: Option<Timestamp>, at: Timestamp) -> Self {
        let recovered = ready_since.is_some_and(|since| at.duration_since(since) >= HEALTHY_RESET);
        Self { count: if recovered { 1 } else { self.count.saturating_add(1) } }
    }
}

/// How long to wait after crash number `count` of `name`: 2^(count-1) seconds, less up to a quarter,
/// never more than five minutes.
pub fn delay(name: &str, count: u32) -> SignedDuration {
    let doublings = count.saturating_sub(1).min(16);
    let full = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_LONGEST);
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).update(&count.to_le_bytes());
    let [byte, ..] = *hasher.finalize().as_bytes();
    let millis = i64::try_from(full.as_millis()).unwrap_or(i64::MAX);
    SignedDuration::from_millis(millis - millis / 4 * i64::from(byte) / 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_one_second_to_five_minutes_less_at_most_a_quarter() {
        for count in 1..40 {
            let full = BACKOFF_FIRST.saturating_mul(1 << (count - 1).min(16)).min(BACKOFF_LONGEST);
            let pause = delay("chat-0", count);
            assert!(pause <= full && pause >= full / 4 * 3, "crash {count}: {pause:?} of {full:?}");
        }
        assert_eq!(delay("chat-0", 3), delay("chat-0", 3));
        assert_ne!(delay("chat-0", 9), delay("chat-1", 9), "instances do not restart in step");
    }

    #[test]
    fn ten_healthy_minutes_forget_earlier_crashes() {
        let start = Timestamp::UNIX_EPOCH;
        let history = CrashHistory { count: 5 };
        let minutes = |n| start + SignedDuration::from_mins(n);
        assert_eq!(history.after_crash(None, minutes(60)).count, 6, "it was never ready");
        assert_eq!(history.after_crash(Some(start), minutes(9)).count, 6);
        assert_eq!(history.after_crash(Some(start), minutes(10)).count, 1);
    }
}
