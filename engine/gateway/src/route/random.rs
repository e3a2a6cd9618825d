//! Randomness for spreading load, ids and default seeds. Not for secrets.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// 64 bits that no other call is expected to return: a counter hashed under a key random to the thread.
pub fn random_u64() -> u64 {
    RandomState::new().hash_one(COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Uniform in `0..bound`; 0 for a bound of 0.
pub fn below(bound: usize) -> usize {
    ((u128::from(random_u64()) * bound as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_cover_the_range_and_stay_inside() {
        let mut seen = [0u32; 5];
        for _ in 0..1000 {
            seen[below(5)] += 1;
        }
        assert!(seen.iter().all(|&n| n > 100), "{seen:?}");
        assert_eq!(below(0), 0);
    }
}
