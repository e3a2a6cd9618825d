//! Remembers which grammars compile, by digest, for the most recently used ones.

use std::collections::{BTreeMap, HashMap};

/// The digest of kind and source.
pub(super) type Digest = [u8; 32];
/// The refusal's words, if it does not compile.
pub(super) type Verdict = Result<(), String>;

#[derive(Debug)]
pub(super) struct Verdicts {
    capacity: usize,
    clock: u64,
    known: HashMap<Digest, (u64, Verdict)>,
    /// Digests by time of last use.
    by_use: BTreeMap<u64, Digest>,
}

impl Verdicts {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), clock: 0, known: HashMap::new(), by_use: BTreeMap::new() }
    }

    pub(super) fn get(&mut self, digest: &Digest) -> Option<Verdict> {
        self.clock += 1;
        let (used, verdict) = self.known.get_mut(digest)?;
        self.by_use.remove(used);
        *used = self.clock;
        self.by_use.insert(self.clock, *digest);
        Some(verdict.clone())
    }

    pub(super) fn insert(&mut self, digest: Digest, verdict: Verdict) {
        self.clock += 1;
        if let Some((used, _)) = self.known.insert(digest, (self.clock, verdict)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.clock, digest);
        while self.known.len() > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else { return };
            self.known.remove(&oldest);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_used_longest_ago_is_forgotten_first() {
        let mut verdicts = Verdicts::new(2);
        verdicts.insert([1; 32], Ok(()));
        verdicts.insert([2; 32], Err("no".to_owned()));
        assert_eq!(verdicts.get(&[1; 32]), Some(Ok(())));
        verdicts.insert([3; 32], Ok(()));
        assert_eq!(verdicts.get(&[2; 32]), None);
        assert_eq!(verdicts.get(&[1; 32]), Some(Ok(())));
        assert_eq!((verdicts.len(), verdicts.by_use.len()), (2, 2));
    }
}
