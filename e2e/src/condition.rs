//! Waiting for a condition with a deadline; a failure tells what was still wrong.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(10);

/// Repeats `check` until it succeeds.
///
/// # Errors
/// The last error of `check`, once `within` has passed.
pub async fn until<T, F, Fut>(what: &str, within: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let began = Instant::now();
    loop {
        match check().await {
            Ok(value) => return Ok(value),
            Err(error) if began.elapsed() > within => {
                return Err(error).with_context(|| format!("{what}: not within {within:?}"));
            }
            Err(_) => tokio::time::sleep(PERIOD).await,
        }
    }
}
