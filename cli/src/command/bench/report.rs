//! The sums of a run, as a table and as JSON.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{Mode, histogram::Histogram, request::Measured};
use crate::present::Table;

#[derive(Debug, Default)]
pub(super) struct Report {
    load: Value,
    pub(super) elapsed: Duration,
    requests: u64,
    /// Requests that failed, by kind.
    errors: BTreeMap<String, u64>,
    first: Histogram,
    gaps: Histogram,
    whole: Histogram,
    prompt_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    kv_bytes: u64,
}

impl Report {
    pub(super) fn mode(&mut self, mode: Mode) {
        self.load = match mode {
            Mode::Closed { concurrency } => json!({"loop": "closed", "concurrency": concurrency}),
            Mode::Open { rate } => json!({"loop": "open", "rate": rate}),
        };
    }

    pub(super) fn add(&mut self, outcome: Result<Measured, String>) {
        self.requests += 1;
        match outcome {
            Ok(measured) => {
                self.first.record(measured.first);
                self.whole.record(measured.whole);
                self.gaps.merge(&measured.gaps);
                self.prompt_tokens += measured.prompt_tokens;
                self.cached_tokens += measured.cached_tokens;
                self.output_tokens += measured.output_tokens;
                self.kv_bytes += measured.kv_bytes;
            }
            Err(kind) => *self.errors.entry(kind).or_default() += 1,
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.first.merge(&other.first);
        self.whole.merge(&other.whole);
        self.gaps.merge(&other.gaps);
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.output_tokens += other.output_tokens;
        self.kv_bytes += other.kv_bytes;
    }

    pub(super) fn succeeded(&self) -> bool {
        self.failed() < self.requests
    }

    fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    pub(super) fn json(&self) -> Value {
        let times = |histogram: &Histogram| {
            json!({
                "mean": round(histogram.mean_ms()),
                "p50": round(histogram.quantile_ms(0.5)),
                "p90": round(histogram.quantile_ms(0.9)),
                "p99": round(histogram.quantile_ms(0.99)),
                "max": round(histogram.max_ms()),
            })
        };
        json!({
            "load": self.load,
            "seconds": round(self.elapsed.as_secs_f64()),
            "requests": self.requests,
            "errors": self.failed(),
            "error_kinds": self.errors,
            "requests_per_second": round(self.per_second(self.requests - self.failed())),
            "output_tokens_per_second": round(self.per_second(self.output_tokens)),
            "prompt_tokens_per_second": round(self.per_second(self.prompt_tokens)),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "kv_bytes": self.kv_bytes,
            "ttft_ms": times(&self.first),
            "inter_token_ms": times(&self.gaps),
            "request_ms": times(&self.whole),
        })
    }

    pub(super) fn table(&self) -> String {
        let kinds: Vec<String> =
            self.errors.iter().map(|(kind, count)| format!(", {count} {kind}")).collect();
        let kinds = kinds.concat();
        let mut times = Table::new(&["MILLISECONDS", "MEAN", "P50", "P90", "P99", "MAX"]);
        for (name, histogram) in [
            ("time to first token", &self.first),
            ("between tokens", &self.gaps),
            ("whole request", &self.whole),
        ] {
            let quantiles = [0.5, 0.9, 0.99].map(|share| format!("{:.1}", histogram.quantile_ms(share)));
            let mut row = vec![name.to_owned(), format!("{:.1}", histogram.mean_ms())];
            row.extend(quantiles);
            row.push(format!("{:.1}", histogram.max_ms()));
            times.row(row);
        }
        format!(
            "{} requests in {:.1} s, {} failed{kinds}\n{:.2} requests/s, {:.1} output tokens/s, {:.1} prompt tokens/s\n\
             {} prompt tokens ({} cached), {} output tokens, {} KV bytes moved\n\n{times}",
            self.requests,
            self.elapsed.as_secs_f64(),
            self.failed(),
            self.per_second(self.requests - self.failed()),
            self.per_second(self.output_tokens),
            self.per_second(self.prompt_tokens),
            self.prompt_tokens,
            self.cached_tokens,
            self.output_tokens,
            self.kv_bytes,
        )
    }
}

/// Three decimals: less is noise.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
