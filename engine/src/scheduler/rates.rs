//! What steps cost, measured, and how much prefill a step may carry.
//!
//! A step's time is modelled as the time of its decode rows plus a cost per prompt token.

use super::Role;

/// Weight of the newest measurement.
const NEWEST: f64 = 0.2;
/// Fewer prompt tokens than this in a step cost nearly as much as this many.
const SMALLEST_CHUNK: usize = 16;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    /// Seconds of a step's decode rows.
    decode_step: Option<f64>,
    /// Seconds of one prompt token.
    prompt_token: Option<f64>,
    /// Tokens per second of the whole batch.
    decode: Option<f64>,
    /// Seconds that prefill may take beside running streams, saved up by the steps before.
    credit: f64,
}

impl Rates {
    pub(super) fn observe(&mut self, decode_rows: usize, prompt_tokens: usize, seconds: f64) {
        if prompt_tokens == 0 {
            average(&mut self.decode_step, seconds);
        } else {
            let decode = if decode_rows > 0 { self.decode_step.unwrap_or(0.0) } else { 0.0 };
            // A mixed step can be faster than the decode step on record; the cost stays positive.
            let cost = (seconds - decode).max(seconds * 0.1) / prompt_tokens as f64;
            average(&mut self.prompt_token, cost);
            self.credit -= cost * prompt_tokens as f64;
        }
        if decode_rows > 0 {
            average(&mut self.decode, decode_rows as f64 / seconds.max(1e-9));
        }
    }

    /// Prompt tokens that the next step may carry beside `streams` running streams.
    pub(super) fn prompt_budget(&mut self, role: Role, streams: usize, chunk: usize) -> usize {
        let Some(share) = role.prefill_share().filter(|_| streams > 0) else {
            self.credit = 0.0;
            return chunk;
        };
        // Neither cost is known until a step was measured that shows it.
        let Some(step) = self.decode_step else { return 0 };
        let Some(cost) = self.prompt_token else { return chunk.min(SMALLEST_CHUNK) };
        let ratio = share / (1.0 - share);
        self.credit = (self.credit + ratio * step).min(cost * chunk as f64);
        let tokens = (self.credit / cost).max(0.0) as usize;
        if tokens < SMALLEST_CHUNK.min(chunk) { 0 } else { tokens }
    }

    /// Tokens per second that prefill gets under the role while `streams` streams run; 0 if not measured.
    pub(super) fn prefill(&self, role: Role, streams: usize, chunk: usize) -> f64 {
        let Some(cost) = self.prompt_token else { return 0.0 };
        match (streams, role.prefill_share()) {
            (0, _) => 1.0 / cost,
            (_, Some(share)) => share / cost,
            (_, None) => chunk as f64 / (chunk as f64 * cost + self.decode_step.unwrap_or(0.0)),
        }
    }

    pub(super) fn decode(&self) -> f64 {
        self.decode.unwrap_or(0.0)
    }
}

fn average(kept: &mut Option<f64>, measured: f64) {
    *kept = Some(kept.map_or(measured, |kept| kept + NEWEST * (measured - kept)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs steps that cost 6 ms of decode and 0.5 ms per prompt token.
    fn prefill_share(role: Role, steps: usize) -> (f64, usize) {
        let mut rates = Rates::default();
        let (mut prefill, mut total, mut largest) = (0.0, 0.0, 0);
        for _ in 0..steps {
            let tokens = rates.prompt_budget(role, 4, 256);
            let seconds = 0.006 + 0.0005 * tokens as f64;
            rates.observe(4, tokens, seconds);
            prefill += seconds - 0.006;
            total += seconds;
            largest = largest.max(tokens);
        }
        (prefill / total, largest)
    }

    #[test]
    fn local_prefill_takes_its_share_of_a_decode_instance_in_small_chunks() {
        let (share, largest) = prefill_share(Role::Decode, 2000);
        assert!((0.2..0.3).contains(&share), "prefill took {share}");
        assert!(largest <= 32, "one step carried {largest} prompt tokens");
    }

    #[test]
    fn other_roles_and_idle_instances_prefill_whole_chunks() {
        assert_eq!(prefill_share(Role::Mixed, 1).1, 256);
        assert_eq!(Rates::default().prompt_budget(Role::Decode, 0, 256), 256);
    }

    #[test]
    fn the_reported_rate_is_what_the_role_leaves() {
        let mut rates = Rates::default();
        assert!(rates.prefill(Role::Mixed, 0, 256) == 0.0, "nothing was measured");
        rates.observe(0, 256, 0.256);
        rates.observe(4, 0, 0.064);
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-6;
        assert!(close(rates.prefill(Role::Decode, 0, 256), 1000.0));
        assert!(close(rates.prefill(Role::Decode, 3, 256), 250.0));
        assert!(close(rates.prefill(Role::Mixed, 3, 256), 800.0));
        assert!(close(rates.decode(), 62.5));
    }
}
