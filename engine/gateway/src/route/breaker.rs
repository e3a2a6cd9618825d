//! A breaker per instance: after repeated failures calls stop, then one probe decides.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Failures in a row that open the breaker.
const OPENS_AFTER: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A probe that never reports counts as failed after this long.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    HalfOpen { since: Instant, pause: Duration },
}

#[derive(Debug)]
pub struct Breaker(Mutex<State>);

impl Default for Breaker {
    fn default() -> Self {
        Self(Mutex::new(State::Closed { failures: 0 }))
    }
}

impl Breaker {
    /// True if a call would be allowed. Changes nothing.
    pub fn allows(&self, now: Instant) -> bool {
        match *self.0.lock() {
            State::Closed { .. } => true,
            State::Open { until, .. } => now >= until,
            State::HalfOpen { since, .. } => now >= since + PROBE_PATIENCE,
        }
    }

    /// Takes permission to call: once open, one caller at a time becomes the probe.
    pub fn try_call(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        match *state {
            State::Closed { .. } => true,
            State::Open { until, pause } if now >= until => {
                *state = State::HalfOpen { since: now, pause };
                true
            }
            State::HalfOpen { since, pause } if now >= since + PROBE_PATIENCE => {
                *state = State::HalfOpen { since: now, pause };
                true
            }
            State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    /// The instance answered, be it with a refusal.
    pub fn succeeded(&self) {
        *self.0.lock() = State::Closed { failures: 0 };
    }

    pub fn failed(&self, now: Instant) {
        let mut state = self.0.lock();
        *state = match *state {
            State::Closed { failures } if failures + 1 < OPENS_AFTER => {
                State::Closed { failures: failures + 1 }
            }
            State::Closed { .. } => State::Open { until: now + FIRST_PAUSE, pause: FIRST_PAUSE },
            // A caller that asks `allows` alone is its own probe once the pause is over.
            State::Open { until, .. } if now < until => return,
            State::Open { pause, .. } | State::HalfOpen { pause, .. } => {
                let pause = (pause * 2).min(LONGEST_PAUSE);
                State::Open { until: now + pause, pause }
            }
        };
    }

    /// 0 closed, 1 open, 2 half-open.
    pub fn gauge(&self) -> i64 {
        match *self.0.lock() {
            State::Closed { .. } => 0,
            State::Open { .. } => 1,
            State::HalfOpen { .. } => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(at: Instant) -> Breaker {
        let breaker = Breaker::default();
        for _ in 0..OPENS_AFTER {
            breaker.failed(at);
        }
        breaker
    }

    #[test]
    fn it_opens_after_three_failures_in_a_row_and_not_before() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..10 {
            breaker.failed(now);
            breaker.failed(now);
            breaker.succeeded();
        }
        assert!(breaker.try_call(now));
        assert!(!opened(now).try_call(now));
    }

    #[test]
    fn after_the_pause_one_probe_goes_through_and_closes_it() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + FIRST_PAUSE;
        assert!(breaker.try_call(later));
        assert!(!breaker.try_call(later), "only one probe");
        breaker.succeeded();
        assert!(breaker.try_call(later) && breaker.try_call(later));
    }

    #[test]
    fn a_failed_probe_doubles_the_pause_up_to_its_limit() {
        let mut now = Instant::now();
        let breaker = opened(now);
        let mut pause = FIRST_PAUSE;
        for _ in 0..8 {
            now += pause / 2;
            assert!(!breaker.try_call(now));
            now += pause / 2;
            assert!(breaker.try_call(now));
            breaker.failed(now);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        assert_eq!(pause, LONGEST_PAUSE);
    }

    #[test]
    fn a_failure_after_the_pause_opens_it_again_for_callers_that_only_look() {
        let now = Instant::now();
        let breaker = opened(now);
        assert!(breaker.allows(now + FIRST_PAUSE));
        breaker.failed(now + FIRST_PAUSE);
        assert!(!breaker.allows(now + FIRST_PAUSE * 2));
        assert!(breaker.allows(now + FIRST_PAUSE * 3));
    }

    #[test]
    fn a_probe_that_vanished_does_not_block_the_next_one_for_ever() {
        let now = Instant::now();
        let breaker = opened(now);
        assert!(breaker.try_call(now + FIRST_PAUSE));
        assert!(breaker.try_call(now + FIRST_PAUSE + PROBE_PATIENCE));
    }
}
