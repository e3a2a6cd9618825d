//! Which tokens a sequence has seen, as far as penalties need to know.

use std::collections::HashMap;

use crate::request::Sampling;

/// Tokens of prompt and output, with the number of times each occurs in the output.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// `None` while no penalty is set, so that most sequences keep no counts.
    counts: Option<HashMap<u32, u32>>,
}

impl History {
    pub fn new(sampling: &Sampling, prompt: &[u32], output: &[u32]) -> Self {
        let Sampling { repetition_penalty, frequency_penalty, presence_penalty, .. } = sampling;
        let strength = (repetition_penalty - 1.0).abs() + frequency_penalty.abs() + presence_penalty.abs();
        let penalized = strength > 0.0;
        let mut history =
            Self { counts: penalized.then(|| prompt.iter().map(|token| (*token, 0)).collect()) };
        for token in output {
            history.push(*token);
        }
        history
    }

    /// Whether some penalty looks at what was seen.
    pub(super) fn is_kept(&self) -> bool {
        self.counts.is_some()
    }

    /// A token was added to the output.
    pub fn push(&mut self, token: u32) {
        if let Some(counts) = &mut self.counts {
            *counts.entry(token).or_default() += 1;
        }
    }

    /// Every token seen and its count in the output.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u32, u32)> {
        self.counts.iter().flatten().map(|(token, count)| (*token, *count))
    }
}
