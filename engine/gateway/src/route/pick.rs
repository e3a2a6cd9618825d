//! Which decode instance takes a request: the better of two drawn at random, against the one that holds
//! most of the prompt.

use shoal_wire::rpc::Load;

use super::random;

/// What a running sequence costs a newcomer, in prompt tokens: its share of each step.
const RUNNING_TOKENS: u64 = 32;
/// A waiting one comes before the newcomer altogether.
const WAITING_TOKENS: u64 = 256;
/// One handed over but not reported yet may be either.
const NEW_TOKENS: u64 = 128;
/// More than any load: the prompt's pages do not fit.
const NO_ROOM: u64 = 1 << 40;

#[derive(Debug, Clone, Copy, Default)]
pub struct Candidate {
    pub load: Load,
    /// Requests handed over since that load was reported.
    pub unreported: u32,
    pub cached_tokens: u32,
    pub page_tokens: u32,
}

impl Candidate {
    /// Work between the request and its first token, in tokens.
    pub fn cost(&self, prompt_tokens: u32) -> u64 {
        let Load { running, waiting, queued_prefill_tokens, pages_free, pages_cached, pages_total, .. } =
            self.load;
        let uncached = u64::from(prompt_tokens.saturating_sub(self.cached_tokens));
        let pages = u64::from(prompt_tokens / self.page_tokens.max(1)) + 1;
        let room = u64::from(pages_free) + u64::from(pages_cached);
        let crowded = if pages_total > 0 && pages > room { NO_ROOM } else { 0 };
        uncached
            + u64::from(queued_prefill_tokens)
            + RUNNING_TOKENS * u64::from(running)
            + WAITING_TOKENS * u64::from(waiting)
            + NEW_TOKENS * u64::from(self.unreported)
            + crowded
    }
}

/// Index of the chosen candidate; none if there is none.
pub fn pick(candidates: &[Candidate], prompt_tokens: u32) -> Option<usize> {
    let drawn = two_of(candidates.len());
    let most_cached = (0..candidates.len())
        .filter(|&i| candidates[i].cached_tokens > 0)
        .max_by_key(|&i| candidates[i].cached_tokens);
    drawn.into_iter().flatten().chain(most_cached).min_by_key(|&i| candidates[i].cost(prompt_tokens))
}

/// Two different indices below `n`, as far as there are.
fn two_of(n: usize) -> [Option<usize>; 2] {
    match n {
        0 => [None, None],
        1 => [Some(0), None],
        _ => {
            let first = random::below(n);
            let second = (first + 1 + random::below(n - 1)) % n;
            [Some(first), Some(second)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(running: u32, cached_tokens: u32) -> Candidate {
        let load = Load { running, pages_total: 1000, pages_free: 1000, ..Load::default() };
        Candidate { load, unreported: 0, cached_tokens, page_tokens: 64 }
    }

    #[test]
    fn of_two_the_less_loaded_one_is_taken() {
        for _ in 0..100 {
            assert_eq!(pick(&[candidate(8, 0), candidate(1, 0)], 100), Some(1));
        }
        assert_eq!(pick(&[], 100), None);
    }

    #[test]
    fn a_long_cached_prefix_outweighs_load_and_a_short_one_does_not() {
        for _ in 0..100 {
            assert_eq!(pick(&[candidate(0, 0), candidate(4, 1024), candidate(0, 0)], 2000), Some(1));
            assert_ne!(pick(&[candidate(0, 0), candidate(16, 64), candidate(0, 0)], 2000), Some(1));
        }
    }

    #[test]
    fn requests_just_handed_over_count_before_they_are_reported() {
        let just_given = Candidate { unreported: 4, ..candidate(0, 0) };
        for _ in 0..100 {
            assert_eq!(pick(&[just_given, candidate(2, 0)], 100), Some(1));
        }
    }

    #[test]
    fn an_instance_without_room_for_the_prompt_is_the_last_choice() {
        let full = Candidate {
            load: Load { pages_free: 1, pages_cached: 0, ..candidate(0, 0).load },
            ..candidate(0, 0)
        };
        for _ in 0..100 {
            assert_eq!(pick(&[full, candidate(40, 0)], 1000), Some(1));
        }
    }

    #[test]
    fn ten_idle_instances_share_the_load_of_blind_gateways() {
        let mut given = [candidate(0, 0); 10];
        for _ in 0..1000 {
            let i = pick(&given, 100).expect("ten");
            given[i].unreported += 1;
        }
        let (least, most) =
            given.iter().map(|c| c.unreported).fold((u32::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
        assert!(most - least <= 12, "{least}..{most}");
    }
}
