//! What this process did, for Prometheus. Nothing a user wrote is in a name or a label.

mod http;

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts,
    Registry, TextEncoder,
};
use shoal_wire::rpc::{EngineState, Load};

use crate::instance::Instance;
use crate::transfer::RefusedFrame;

pub use http::serve;

/// Seconds; from a cached prompt to a long queue.
const LATENCY: [f64; 12] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

type Reading<T> = (&'static str, &'static str, fn(&EngineState, &Load) -> T);

/// Read from the instance's state when the page is asked for.
const TOTALS: [Reading<u64>; 5] = [
    ("prompt_tokens_total", "Prompt tokens admitted.", |_, load| load.tokens_in),
    ("output_tokens_total", "Tokens produced.", |_, load| load.tokens_out),
    ("kv_sent_bytes_total", "KV payload bytes sent to decode instances.", |_, load| load.kv_bytes_sent),
    ("kv_received_bytes_total", "KV payload bytes that landed here.", |_, load| load.kv_bytes_received),
    ("preemptions_total", "Sequences dropped to the prefix cache for want of pages.", |_, load| {
        load.preemptions
    }),
];
const CURRENT: [Reading<f64>; 11] = [
    ("running_sequences", "Sequences in the batch.", |_, load| load.running.into()),
    ("waiting_sequences", "Sequences admitted and not in the batch.", |_, load| load.waiting.into()),
    ("queued_prefill_tokens", "Prompt tokens still to compute.", |_, load| load.queued_prefill_tokens.into()),
    ("prefill_tokens_per_second", "Measured prefill rate under the role.", |_, load| {
        load.prefill_rate.into()
    }),
    ("decode_tokens_per_second", "Measured decode rate of the batch.", |_, load| load.decode_rate.into()),
    ("transfer_bytes_per_second", "Measured rate of KV pages.", |_, load| load.transfer_rate.into()),
    (
        "remote_prefill_overhead_seconds",
        "Remote prefill beyond compute and transfer, measured on decode.",
        |_, load| f64::from(load.prefill_overhead_ms) / 1e3,
    ),
    ("incoming_transfers", "Transfers this instance waits for.", |state, _| state.transfers_open as f64),
    ("data_sockets", "Data sockets open.", |state, _| state.data_sockets.into()),
    ("role_epoch", "Epoch of the last accepted role.", |state, _| state.epoch as f64),
    ("draining", "1 while nothing new is admitted.", |state, _| u8::from(state.draining).into()),
];

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    first_token: Histogram,
    prefill_attempts: IntCounterVec,
    local_fallbacks: IntCounter,
    refused: IntCounterVec,
    pages: GaugeVec,
    totals: Vec<IntCounter>,
    current: Vec<Gauge>,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("shoal_engine".to_owned()), None)?;
        let of = &registry;
        let requests = Opts::new("requests_total", "Calls by purpose and how they ended.");
        let seconds = latency("request_duration_seconds", "Time from a call's start to its last message.");
        let first =
            latency("time_to_first_token_seconds", "From a Generate call's start to its first token.");
        let attempts = Opts::new("prefill_attempts_total", "Prefill instances asked, by what came of it.");
        let fallbacks = "Requests prefilled here after their prefill instances failed.";
        let refused = Opts::new("frames_refused_total", "Page frames dropped, by reason.");
        let pages = Opts::new("kv_pages", "Pages of the pool by state.");
        Ok(Self {
            requests: register(of, IntCounterVec::new(requests, &["purpose", "outcome"]))?,
            seconds: register(of, HistogramVec::new(seconds, &["purpose"]))?,
            first_token: register(of, Histogram::with_opts(first))?,
            prefill_attempts: register(of, IntCounterVec::new(attempts, &["outcome"]))?,
            local_fallbacks: register(of, IntCounter::new("local_fallbacks_total", fallbacks))?,
            refused: register(of, IntCounterVec::new(refused, &["reason"]))?,
            pages: register(of, GaugeVec::new(pages, &["state"]))?,
            totals: TOTALS
                .iter()
                .map(|(name, help, _)| register(of, IntCounter::new(*name, *help)))
                .collect::<Result<_, _>>()?,
            current: CURRENT
                .iter()
                .map(|(name, help, _)| register(of, Gauge::new(*name, *help)))
                .collect::<Result<_, _>>()?,
            registry,
        })
    }

    pub fn request(&self, purpose: &str, outcome: &str, took: Duration) {
        self.requests.with_label_values(&[purpose, outcome]).inc();
        self.seconds.with_label_values(&[purpose]).observe(took.as_secs_f64());
    }

    pub fn first_token(&self, took: Duration) {
        self.first_token.observe(took.as_secs_f64());
    }

    pub fn prefill_attempt(&self, outcome: &str) {
        self.prefill_attempts.with_label_values(&[outcome]).inc();
    }

    pub fn local_fallback(&self) {
        self.local_fallbacks.inc();
    }

    /// The page that Prometheus reads.
    pub fn render(&self, instance: &Instance) -> Result<Vec<u8>, prometheus::Error> {
        self.read(&instance.state());
        for reason in RefusedFrame::ALL {
            raise(&self.refused.with_label_values(&[reason.name()]), instance.table.refused(reason));
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn read(&self, state: &EngineState) {
        let load = state.load.unwrap_or_default();
        let Load { pages_total, pages_free, pages_cached, .. } = load;
        let used = pages_total.saturating_sub(pages_free + pages_cached);
        for (page_state, count) in [("free", pages_free), ("cached", pages_cached), ("used", used)] {
            self.pages.with_label_values(&[page_state]).set(count.into());
        }
        for (counter, (_, _, reading)) in self.totals.iter().zip(TOTALS) {
            raise(counter, reading(state, &load));
        }
        for (gauge, (_, _, reading)) in self.current.iter().zip(CURRENT) {
            gauge.set(reading(state, &load));
        }
    }
}

fn latency(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(LATENCY.to_vec())
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let collector = collector?;
    registry.register(Box::new(collector.clone())).map(|()| collector)
}

/// Brings a counter up to a total that is kept elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
