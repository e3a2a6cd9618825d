//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Attempts in a row that brought nothing; then the process ends and says why, and its node starts it again.
pub const ATTEMPTS: u32 = 8;

/// Waits before attempt `count + 1`; `error` is why.
pub async fn wait(count: u32, asked: Option<Duration>, error: &(dyn std::error::Error + Sync)) {
    let mut random = [0];
    // Without randomness pods come back together; nothing worse.
    let _ = getrandom::fill(&mut random);
    let delay = delay(count - 1, asked, random[0]);
    tracing::warn!(%error, ?delay, "trying again");
    tokio::time::sleep(delay).await;
}

/// After `count + 1` attempts that brought nothing: doubling, less up to a quarter by `random`,
/// so that pods which failed together do not come back together; never sooner than the server asks.
fn delay(count: u32, asked: Option<Duration>, random: u8) -> Duration {
    let full = FIRST.saturating_mul(1 << count.min(10)).min(LONGEST);
    let less = full.mul_f64(f64::from(random) / 256.0 / 4.0);
    full.saturating_sub(less).max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_stay_bounded_and_heed_the_server() {
        assert_eq!(delay(0, None, 0), FIRST);
        assert_eq!(delay(3, None, 0), FIRST * 8);
        assert_eq!(delay(31, None, 0), LONGEST);
        assert!(delay(3, None, 255) >= FIRST * 6);
        assert_eq!(delay(0, Some(LONGEST * 2), 0), LONGEST * 2);
    }
}
