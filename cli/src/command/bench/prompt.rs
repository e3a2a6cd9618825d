//! Prompts of common short words: about one token each in the usual vocabularies, and never twice the same.

const WORDS: [&str; 48] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not",
    "he", "this", "are", "or", "his", "from", "at", "which", "but", "have", "an", "had", "they", "you",
    "were", "their", "one", "all", "we", "can", "her", "has", "there", "been", "if", "more", "when", "will",
    "would", "who", "so", "no",
];

/// A stream of pseudo-random numbers (SplitMix64): load needs to be repeatable, not unpredictable.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// In (0, 1].
    pub(super) fn share(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn words(&mut self, count: u32) -> String {
        (0..count).map(|_| WORDS[(self.next() % WORDS.len() as u64) as usize]).collect::<Vec<_>>().join(" ")
    }
}

#[derive(Debug, Clone)]
pub(super) struct Prompts {
    seed: u64,
    prefix: String,
    lengths: Vec<u32>,
}

impl Prompts {
    pub(super) fn new(seed: u64, prefix: u32, lengths: Vec<u32>) -> Self {
        Self { seed, prefix: Random::new(seed).words(prefix), lengths }
    }

    /// The prompt of request `number`; the same for the same seed.
    pub(super) fn get(&self, number: u64) -> String {
        let length = self.lengths[(number % self.lengths.len() as u64) as usize];
        let own = Random::new(self.seed ^ (number + 1).wrapping_mul(0xA24B_AED4_963E_E407)).words(length);
        if self.prefix.is_empty() { own } else { format!("{} {own}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_repeat_with_the_seed_differ_from_each_other_and_share_what_they_should() {
        let prompts = Prompts::new(7, 3, vec![4, 8]);
        assert_eq!(prompts.get(5), Prompts::new(7, 3, vec![4, 8]).get(5));
        assert_ne!(prompts.get(0), prompts.get(2));
        assert_ne!(prompts.get(0), Prompts::new(8, 3, vec![4, 8]).get(0));
        let words = |text: &str| text.split(' ').count();
        assert_eq!((words(&prompts.get(0)), words(&prompts.get(1))), (7, 11));
        let start = |text: String| text.split(' ').take(3).collect::<Vec<_>>().join(" ");
        assert_eq!(start(prompts.get(0)), start(prompts.get(1)));
    }
}
