//! How long the planner waits, and for what. Constants of the product, not knobs.

use jiff::SignedDuration;

/// A drained instance may take this long to finish what it holds; then it is removed with its work, which
/// the gateway replays elsewhere.
pub const DRAIN_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);
/// A process that is alive but answers nothing is replaced after this long. Long enough for a machine to
/// wake from sleep or a debugger to let go, short enough that a user need not act.
pub const UNRESPONSIVE_GRACE: SignedDuration = SignedDuration::from_secs(30);
/// Loading weights from a cold disk may take this long.
pub const START_TIMEOUT: SignedDuration = SignedDuration::from_secs(15 * 60);
/// A gateway loads only a tokenizer.
pub const GATEWAY_START_TIMEOUT: SignedDuration = SignedDuration::from_secs(2 * 60);
/// An instance that was ready for this long has recovered: its next crash is its first.
pub const HEALTHY_RESET: SignedDuration = SignedDuration::from_secs(10 * 60);
/// First and longest pause before a crashed process is started again.
pub(crate) const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(1);
pub(crate) const BACKOFF_LONGEST: SignedDuration = SignedDuration::from_secs(5 * 60);
