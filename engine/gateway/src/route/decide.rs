//! Where to prefill: on the decode instance itself, or on a prefill instance. Pure; from measured rates.
//!
//! ```text
//! here    (queued here + uncached here) / rate here
//! remote  (queued there + uncached there) / rate there + bytes / transfer rate + overhead
//! ```

/// The decode instance that was picked. Rates of 0 are not measured yet.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Here {
    pub prompt_tokens: u32,
    pub cached_tokens: u32,
    pub queued_tokens: u32,
    /// Tokens/s it gives to prefill under its present role.
    pub prefill_rate: f32,
    /// KV bytes/s it receives.
    pub transfer_rate: f32,
    /// Milliseconds of a remote prefill beyond compute and transfer.
    pub overhead_ms: f32,
    /// KV bytes of one token.
    pub token_bytes: u32,
}

/// One prefill instance.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct There {
    pub cached_tokens: u32,
    pub queued_tokens: u32,
    pub prefill_rate: f32,
    /// KV bytes/s it sends.
    pub transfer_rate: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    CheaperHere,
    MostlyCached,
    CheaperRemote,
    NoPrefillInstance,
    Unmeasured,
    /// The operator of this gateway said so.
    Configured,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CheaperHere => "cheaper_here",
            Self::MostlyCached => "mostly_cached",
            Self::CheaperRemote => "cheaper_remote",
            Self::NoPrefillInstance => "no_prefill_instance",
            Self::Unmeasured => "unmeasured",
            Self::Configured => "configured",
        }
    }
}

/// What the operator of the gateway allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Placement {
    /// Whichever is estimated to be faster
    #[default]
    Auto,
    /// On a prefill instance whenever there is one
    Remote,
    /// On the decode instance
    Local,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Indices of prefill instances, best first; empty means on the decode instance.
    pub targets: Vec<usize>,
    pub reason: Reason,
    /// Estimates, where everything they need is measured.
    pub here_ms: Option<f32>,
    pub remote_ms: Option<f32>,
}

impl Decision {
    pub fn place(&self) -> &'static str {
        if self.targets.is_empty() { "local" } else { "remote" }
    }
}

/// At most this many prefill instances are named to the decode instance.
const TARGETS: usize = 2;

pub fn decide(placement: Placement, here: &Here, there: &[There]) -> Decision {
    let targets = ranked(here, there);
    let here_ms = here_ms(here);
    let remote_ms = targets.first().and_then(|&best| remote_ms(here, &there[best]));
    let local = |reason| Decision { targets: vec![], reason, here_ms, remote_ms };
    if placement == Placement::Local {
        return local(Reason::Configured);
    }
    if there.is_empty() {
        return local(Reason::NoPrefillInstance);
    }
    let reason = match (placement, here_ms, remote_ms) {
        (Placement::Remote, ..) => Reason::Configured,
        (_, Some(here_ms), Some(remote_ms)) if here_ms <= remote_ms => {
            let mostly_cached = here.cached_tokens * 2 >= here.prompt_tokens.max(1);
            return local(if mostly_cached { Reason::MostlyCached } else { Reason::CheaperHere });
        }
        (_, Some(_), Some(_)) => Reason::CheaperRemote,
        _ => Reason::Unmeasured,
    };
    Decision { targets, reason, here_ms, remote_ms }
}

fn here_ms(here: &Here) -> Option<f32> {
    let uncached = here.prompt_tokens.saturating_sub(here.cached_tokens).max(1);
    milliseconds(here.queued_tokens + uncached, here.prefill_rate)
}

fn remote_ms(here: &Here, there: &There) -> Option<f32> {
    let compute = wait_and_compute_ms(here, there)?;
    let moved = here.prompt_tokens.saturating_sub(here.cached_tokens) as f32 * here.token_bytes as f32;
    let rate = match (here.transfer_rate, there.transfer_rate) {
        (a, b) if a > 0.0 && b > 0.0 => a.min(b),
        (a, b) => a.max(b),
    };
    (rate > 0.0).then(|| compute + moved / rate * 1e3 + here.overhead_ms.max(0.0))
}

fn wait_and_compute_ms(here: &Here, there: &There) -> Option<f32> {
    let uncached = here.prompt_tokens.saturating_sub(there.cached_tokens.max(here.cached_tokens)).max(1);
    milliseconds(there.queued_tokens + uncached, there.prefill_rate)
}

/// Best first: by estimated time; instances without a measured rate by the tokens before and in this
/// prompt, as if they ran at the mean rate of the others.
fn ranked(here: &Here, there: &[There]) -> Vec<usize> {
    let measured: Vec<f32> = there.iter().map(|t| t.prefill_rate).filter(|&rate| rate > 0.0).collect();
    let mean = if measured.is_empty() { 1.0 } else { measured.iter().sum::<f32>() / measured.len() as f32 };
    let time = |t: &There| {
        let rate = if t.prefill_rate > 0.0 { t.prefill_rate } else { mean };
        wait_and_compute_ms(here, &There { prefill_rate: rate, ..*t }).unwrap_or(f32::MAX)
    };
    let mut order: Vec<usize> = (0..there.len()).collect();
    order.sort_by(|&a, &b| time(&there[a]).total_cmp(&time(&there[b])));
    order.truncate(TARGETS);
    order
}

fn milliseconds(tokens: u32, rate: f32) -> Option<f32> {
    (rate > 0.0).then(|| tokens as f32 / rate * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Here = Here {
        prompt_tokens: 1000,
        cached_tokens: 0,
        queued_tokens: 0,
        prefill_rate: 1000.0,
        transfer_rate: 1e9,
        overhead_ms: 5.0,
        token_bytes: 20_000,
    };
    const THERE: There =
        There { cached_tokens: 0, queued_tokens: 0, prefill_rate: 2000.0, transfer_rate: 1e9 };

    #[test]
    fn the_table_of_decisions() {
        use Placement::{Auto, Local, Remote};
        let slow = There { prefill_rate: 100.0, ..THERE };
        let busy = There { queued_tokens: 2000, ..THERE };
        let cold = There { prefill_rate: 0.0, ..THERE };
        let cached = Here { cached_tokens: 960, ..HERE };
        let table: &[(Placement, Here, &[There], &str, Reason)] = &[
            (Auto, HERE, &[], "local", Reason::NoPrefillInstance),
            (Remote, HERE, &[], "local", Reason::NoPrefillInstance),
            (Auto, HERE, &[THERE], "remote", Reason::CheaperRemote),
            (Auto, HERE, &[slow], "local", Reason::CheaperHere),
            (Auto, HERE, &[busy], "local", Reason::CheaperHere),
            (Auto, cached, &[busy], "local", Reason::MostlyCached),
            (Auto, HERE, &[cold], "remote", Reason::Unmeasured),
            (Auto, Here { prefill_rate: 0.0, ..HERE }, &[THERE], "remote", Reason::Unmeasured),
            (Auto, Here { prefill_rate: 0.0, ..HERE }, &[], "local", Reason::NoPrefillInstance),
            (Auto, Here { queued_tokens: 9000, ..HERE }, &[busy], "remote", Reason::CheaperRemote),
            (Remote, cached, &[slow], "remote", Reason::Configured),
            (Local, HERE, &[THERE], "local", Reason::Configured),
        ];
        for (i, (placement, here, there, place, reason)) in table.iter().enumerate() {
            let decision = decide(*placement, here, there);
            assert_eq!((decision.place(), decision.reason), (*place, *reason), "row {i}");
        }
    }

    #[test]
    fn the_estimates_are_the_stated_formulas() {
        let decision = decide(Placement::Auto, &HERE, &[THERE]);
        assert_eq!(decision.here_ms, Some(1000.0));
        assert_eq!(decision.remote_ms, Some(500.0 + 20.0 + 5.0));
    }

    #[test]
    fn prefill_instances_are_named_best_first_and_at_most_two() {
        let busy = There { queued_tokens: 4000, ..THERE };
        let warm = There { cached_tokens: 900, ..THERE };
        let decision = decide(Placement::Remote, &HERE, &[busy, THERE, warm]);
        assert_eq!(decision.targets, vec![2, 1]);
    }

    #[test]
    fn a_rate_that_is_not_measured_never_hides_an_idle_instance() {
        let busy = There { queued_tokens: 4000, ..THERE };
        let unmeasured = There { prefill_rate: 0.0, ..THERE };
        assert_eq!(decide(Placement::Remote, &HERE, &[busy, unmeasured]).targets, vec![1, 0]);
    }
}
