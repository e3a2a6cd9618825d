//! Hands one sequence to the scheduler.

use std::time::Instant;

use tokio::sync::mpsc;

use super::running::Running;
use super::validate::Prompt;
use crate::grammar::Matcher;
use crate::instance::Instance;
use crate::request::{Event, Purpose, Request};

pub(super) type EventReceiver = mpsc::UnboundedReceiver<Event>;

/// Submits choice `choice` of a prompt. Each choice samples with a seed of its own.
pub(super) fn submit(
    instance: &Instance,
    prompt: &Prompt,
    purpose: Purpose,
    choice: u32,
    grammar: Option<Matcher>,
    deadline: Option<Instant>,
) -> (Running, EventReceiver) {
    let (events, receiver) = mpsc::unbounded_channel();
    let mut sampling = prompt.sampling.clone();
    sampling.seed = choice_seed(sampling.seed, choice);
    let id = instance.handle.submit(Request {
        purpose,
        tokens: prompt.tokens.clone(),
        generated: prompt.generated,
        sampling,
        grammar,
        keyer: prompt.keyer.clone(),
        tenant: prompt.tenant.clone(),
        deadline,
        events,
    });
    (instance.running.enter(&prompt.request_id, &instance.handle, id), receiver)
}

/// Choice 0 keeps the request's seed; the others are spread by a bijection (the finaliser of `SplitMix64`).
fn choice_seed(seed: u64, choice: u32) -> u64 {
    if choice == 0 {
        return seed;
    }
    let mut z = seed.wrapping_add(u64::from(choice).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_of_one_request_sample_differently_and_the_first_as_if_alone() {
        let seeds: std::collections::HashSet<u64> = (0..64).map(|choice| choice_seed(7, choice)).collect();
        assert_eq!(seeds.len(), 64);
        assert_eq!(choice_seed(7, 0), 7);
    }
}
