//! What the gateway counts. Names follow Prometheus: base units, `_total`, bounded labels, never text of a
//! request, a key or an address.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

const TTFT_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 400.0];
const TOKEN_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const REQUEST_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
const OVERHEAD_SECONDS: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 1.0];

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Labels: route, status class (`2xx`).
    pub requests: IntCounterVec,
    /// Label: route.
    pub request_seconds: HistogramVec,
    pub ttft_seconds: Histogram,
    pub token_seconds: Histogram,
    /// From the last body byte to the call of a decode instance: what the gateway itself adds.
    pub prepare_seconds: Histogram,
    pub prompt_tokens: IntCounter,
    pub cached_tokens: IntCounter,
    pub output_tokens: IntCounter,
    pub kv_bytes: IntCounter,
    /// Labels: where (local, remote), reason.
    pub decisions: IntCounterVec,
    /// Calls made again before an instance accepted the request. Label: cause.
    pub retries: IntCounterVec,
    pub retries_refused: IntCounter,
    /// Accepted requests continued on another instance. Label: cause (lost, stalled, drained).
    pub replays: IntCounterVec,
    pub poisoned: IntCounter,
    /// Label: instance. 0 closed, 1 open, 2 half-open.
    pub breaker: IntGaugeVec,
    pub streams_open: IntGauge,
    pub connections_open: IntGauge,
    /// Requests answered 429 or 503 by a limit of the gateway. Label: limit.
    pub shed: IntCounterVec,
    /// Clients that left before their answer was complete.
    pub disconnects: IntCounter,
    /// Instances by role as last reported. Label: role.
    pub instances: IntGaugeVec,
    /// Watch streams opened again. Label: cause (gap, lost).
    pub resubscriptions: IntCounterVec,
    pub discovery_errors: IntCounter,
}

impl Metrics {
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("shoal_gateway".to_owned()), None)?;
        let r = &registry;
        Ok(Self {
            requests: counters(r, "requests_total", "HTTP requests answered.", &["route", "status"])?,
            request_seconds: histograms(
                r,
                "request_duration_seconds",
                "From the request's head to the end of its answer.",
                REQUEST_SECONDS,
                &["route"],
            )?,
            ttft_seconds: histogram(
                r,
                "time_to_first_token_seconds",
                "From the request's head to its first token.",
                TTFT_SECONDS,
            )?,
            token_seconds: histogram(
                r,
                "inter_token_latency_seconds",
                "Between two tokens of one choice.",
                TOKEN_SECONDS,
            )?,
            prepare_seconds: histogram(
                r,
                "prepare_seconds",
                "From the last body byte to the call of a decode instance.",
                OVERHEAD_SECONDS,
            )?,
            prompt_tokens: counter(r, "prompt_tokens_total", "Prompt tokens of accepted requests.")?,
            cached_tokens: counter(r, "cached_tokens_total", "Prompt tokens found in a prefix cache.")?,
            output_tokens: counter(r, "output_tokens_total", "Tokens received from decode instances.")?,
            kv_bytes: counter(r, "kv_transfer_bytes_total", "KV bytes moved from prefill to decode.")?,
            decisions: counters(
                r,
                "prefill_decisions_total",
                "Where prompts were prefilled, and why.",
                &["where", "reason"],
            )?,
            retries: counters(
                r,
                "retries_total",
                "Calls made again before any instance accepted the request.",
                &["cause"],
            )?,
            retries_refused: counter(r, "retries_refused_total", "Retries the retry budget did not allow.")?,
            replays: counters(
                r,
                "replays_total",
                "Accepted requests continued on another instance.",
                &["cause"],
            )?,
            poisoned: counter(r, "poisoned_requests_total", "Requests ended because two instances died.")?,
            breaker: gauges(r, "breaker_state", "0 closed, 1 open, 2 half-open.", &["instance"])?,
            streams_open: gauge(r, "streams_open", "Requests generating now.")?,
            connections_open: gauge(r, "connections_open", "Client connections.")?,
            shed: counters(r, "shed_total", "Requests refused by a limit of the gateway.", &["limit"])?,
            disconnects: counter(r, "client_disconnects_total", "Clients that left before the end.")?,
            instances: gauges(r, "instances", "Instances heard from, by reported role.", &["role"])?,
            resubscriptions: counters(
                r,
                "watch_resubscriptions_total",
                "Watch streams opened again.",
                &["cause"],
            )?,
            discovery_errors: counter(
                r,
                "discovery_errors_total",
                "Unusable instance lists; the last good one stays in use.",
            )?,
            registry,
        })
    }

    /// The text exposition format.
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 << 10);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "cannot render the metrics");
        }
        out
    }
}

fn counter(r: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let metric = IntCounter::new(name, help)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(r: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let metric = IntGauge::new(name, help)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(r: &Registry, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
    let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histograms(
    r: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> prometheus::Result<HistogramVec> {
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}
