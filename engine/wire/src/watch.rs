//! Sequence checking of a `Watch` stream.

/// Follows `seq`; a gap means the reader must subscribe again and start from a snapshot.
#[derive(Debug, Default, Clone, Copy)]
pub struct SequenceCheck(Option<u64>);

impl SequenceCheck {
    /// True if `seq` follows the last one, or is the first.
    pub fn follows(&mut self, seq: u64) -> bool {
        let expected = self.0.is_none_or(|last| seq == last.wrapping_add(1));
        self.0 = Some(seq);
        expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_or_a_repeat_is_noticed() {
        let mut check = SequenceCheck::default();
        assert!(check.follows(7) && check.follows(8));
        assert!(!check.follows(10));
        assert!(!check.follows(10));
    }
}
