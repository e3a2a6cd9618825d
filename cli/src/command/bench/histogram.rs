//! Durations in buckets that grow by 1 %: percentiles within 1 % in bounded memory.

use std::time::Duration;

/// From 1 µs on; the last bucket holds everything from about an hour on.
const BUCKETS: usize = 2220;
const GROWTH: f64 = 1.01;

#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: Duration,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, sum: Duration::ZERO, max: Duration::ZERO }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, value: Duration) {
        let micros = value.as_secs_f64() * 1e6;
        let bucket = if micros <= 1.0 { 0 } else { (micros.ln() / GROWTH.ln()) as usize };
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.count += 1;
        self.sum += value;
        self.max = self.max.max(value);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Milliseconds that `share` (0 to 1) of the values do not exceed; 0 without values.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= wanted {
                let upper = GROWTH.powi(bucket as i32 + 1) / 1e3;
                return upper.min(self.max_ms());
            }
        }
        0.0
    }

    pub(super) fn mean_ms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum.as_secs_f64() * 1e3 / self.count as f64 }
    }

    pub(super) fn max_ms(&self) -> f64 {
        self.max.as_secs_f64() * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_one_percent() {
        let mut histogram = Histogram::default();
        for millis in 1..=1000 {
            histogram.record(Duration::from_millis(millis));
        }
        for (share, exact) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = histogram.quantile_ms(share);
            assert!((found / exact - 1.0).abs() <= 0.01, "{share}: {found}");
        }
        assert!((histogram.mean_ms() - 500.5).abs() < 1e-6);
        assert!(Histogram::default().quantile_ms(0.5) == 0.0);
    }
}
