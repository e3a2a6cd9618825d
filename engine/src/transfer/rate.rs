//! A measured quantity, smoothed: routing decides by what was seen, never by a constant.

use parking_lot::Mutex;

/// Weight of the newest sample.
const NEWEST: f32 = 0.2;

/// Exponentially weighted mean; 0 until the first sample.
#[derive(Debug, Default)]
pub struct Rate(Mutex<Option<f32>>);

impl Rate {
    pub fn record(&self, sample: f32) {
        if sample.is_finite() && sample >= 0.0 {
            let mut mean = self.0.lock();
            *mean = Some(mean.map_or(sample, |old| old + NEWEST * (sample - old)));
        }
    }

    pub fn get(&self) -> f32 {
        self.0.lock().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_the_samples_and_ignores_what_is_not_a_number() {
        let rate = Rate::default();
        assert!(rate.get().abs() < f32::EPSILON);
        rate.record(10.0);
        rate.record(f32::NAN);
        rate.record(20.0);
        assert!((rate.get() - 12.0).abs() < 1e-6);
    }
}
