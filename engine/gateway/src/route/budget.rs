//! The retry budget: retries are at most a tenth of requests, plus a small floor, so that a struggling
//! fleet is not buried under repeated calls.

use std::time::Instant;

use parking_lot::Mutex;

/// What one request earns.
const SHARE: f64 = 0.1;
/// What each second earns, requests or not.
const PER_SECOND: f64 = 1.0;
/// Savings stop here: about a burst of a thousand requests' worth.
const MOST: f64 = 100.0;
/// A fresh gateway may retry this often at once.
const AT_START: f64 = 10.0;

#[derive(Debug)]
pub struct RetryBudget(Mutex<(f64, Instant)>);

impl RetryBudget {
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new((AT_START, now)))
    }

    pub fn request_arrived(&self) {
        let mut state = self.0.lock();
        state.0 = (state.0 + SHARE).min(MOST);
    }

    /// True if one more retry is allowed now.
    pub fn try_retry(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        let earned = now.saturating_duration_since(state.1).as_secs_f64() * PER_SECOND;
        let balance = if state.0 < AT_START { (state.0 + earned).min(AT_START) } else { state.0 };
        let allowed = balance >= 1.0;
        *state = (balance - if allowed { 1.0 } else { 0.0 }, now);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thousand_failing_requests_cause_about_a_hundred_retries() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        let mut retries = 0;
        for _ in 0..1000 {
            budget.request_arrived();
            while budget.try_retry(now) {
                retries += 1;
            }
        }
        assert!((100..=111).contains(&retries), "{retries}");
    }

    #[test]
    fn an_idle_gateway_earns_a_small_floor_and_no_more() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        while budget.try_retry(now) {}
        let later = now + Duration::from_hours(1);
        let mut retries = 0;
        while budget.try_retry(later) {
            retries += 1;
        }
        assert_eq!(retries, 10);
    }
}
