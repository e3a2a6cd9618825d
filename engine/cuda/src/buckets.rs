//! The sizes that steps are rounded up to, so that plans and graphs are few.

/// Batch sizes that decode has a graph for, up to `most`: 1, 2, 4, then multiples of 8.
pub(crate) fn decode(batch: usize) -> usize {
    match batch {
        0..=2 => batch,
        3..=4 => 4,
        _ => batch.next_multiple_of(8),
    }
}

/// Rows that a step of `tokens` computes. The rows added are padding whose results nobody reads: at most 7
/// up to 256 tokens and at most a sixteenth beyond.
pub(crate) fn rows(tokens: usize) -> usize {
    match tokens {
        0..=256 => decode(tokens),
        _ => tokens.next_multiple_of((tokens.next_power_of_two() / 32).max(8)),
    }
}

/// Blocks that share a sequence in decode attention: as many as keep the device full and no more.
pub(crate) fn splits(batch: usize, blocks_per_split: usize, multiprocessors: usize) -> usize {
    const RESIDENT: usize = 2;
    let fits = |splits: &usize| splits * batch * blocks_per_split <= RESIDENT * multiprocessors;
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_by_little() {
        for tokens in 1..20_000 {
            let rows = rows(tokens);
            assert!(rows >= tokens && rows - tokens <= 7.max(tokens / 16), "{tokens} became {rows}");
            assert_eq!(super::rows(rows), rows, "a rounded size stays");
        }
        assert_eq!([1, 2, 3, 5, 64, 250].map(decode), [1, 2, 4, 8, 64, 256]);
    }

    #[test]
    fn small_batches_are_split_and_large_ones_are_not() {
        assert_eq!(splits(256, 8, 132), 1);
        assert_eq!(splits(8, 8, 132), 4);
        assert_eq!(splits(1, 8, 132), 8);
    }
}
