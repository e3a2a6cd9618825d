//! Random damage to valid files, for the property tests of every reader of untrusted bytes.

use proptest::prelude::*;
use proptest::sample::Index;

/// Runs of each property; a run takes some ten microseconds.
pub(crate) fn config() -> ProptestConfig {
    ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() }
}

/// One thing done to the bytes of a file.
#[derive(Debug, Clone)]
pub(crate) enum Damage {
    Flip(Index, u8),
    /// Overwrites eight bytes: counts, lengths, dimensions and offsets become absurd.
    Word(Index, u64),
    Cut(Index),
    Remove(Index, usize),
    Repeat(Index, usize),
}

pub(crate) fn damage() -> impl Strategy<Value = Damage> {
    let words = prop_oneof![
        Just(u64::MAX),
        Just(u64::MAX / 2 + 1),
        Just(1 << 32),
        Just(0),
        Just(1 << 40),
        (0u64..1 << 20),
        any::<u64>()
    ];
    prop_oneof![
        (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<Index>(), words).prop_map(|(at, word)| Damage::Word(at, word)),
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), 1usize..64).prop_map(|(at, count)| Damage::Remove(at, count)),
        (any::<Index>(), 1usize..64).prop_map(|(at, count)| Damage::Repeat(at, count)),
    ]
}

/// Damages the first `header` bytes, where all structure is.
pub(crate) fn damaged(original: &[u8], header: usize, damages: &[Damage]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for damage in damages {
        let header = header.min(bytes.len()).max(1);
        match damage {
            Damage::Flip(at, bit) => {
                let at = at.index(header);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Damage::Word(at, word) => {
                let at = at.index(header);
                if let Some(target) = bytes.get_mut(at..at + 8) {
                    target.copy_from_slice(&word.to_le_bytes());
                }
            }
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len().max(1))),
            Damage::Remove(at, count) => {
                let start = at.index(header).min(bytes.len());
                let end = (start + count).min(bytes.len());
                bytes.drain(start..end);
            }
            Damage::Repeat(at, count) => {
                let start = at.index(header).min(bytes.len());
                let end = (start + count).min(bytes.len());
                let part = bytes[start..end].to_vec();
                bytes.splice(start..start, part);
            }
        }
    }
    bytes
}
