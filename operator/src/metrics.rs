//! What the operator did, for Prometheus, with labels that come from enums; and what is true of each `ServingCluster`,
//! with its name.

mod clusters;

use std::{sync::Arc, time::Duration};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use clusters::Clusters;
pub use clusters::{SHOWN, Showing, ShownCertificate, ShownCluster};

/// Seconds; from a pass that finds nothing to do, to one with engines that do not answer.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Calls; none at rest, a few per object when a cluster is made, and at most a fixed number of steps.
const CALLS: [f64; 12] = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconcile_seconds: HistogramVec,
    calls_per_reconcile: Histogram,
    writes: IntCounterVec,
    reads: IntCounterVec,
    engine_calls: IntCounterVec,
    steps: IntCounterVec,
    watch_errors: IntCounterVec,
    /// Objects that something happened to and that no reconcile has begun for.
    pub queue_depth: IntGauge,
    pub leader: IntGauge,
}

impl Metrics {
    /// # Errors
    /// When two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("shoal_operator".to_owned()), None)?;
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let seconds = HistogramOpts::new("reconcile_duration_seconds", "Time of one reconcile, by outcome.");
        let reconcile_seconds = HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["outcome"])?;
        registry.register(Box::new(reconcile_seconds.clone()))?;
        let calls = HistogramOpts::new("reconcile_api_calls", "Calls to the API server in one reconcile.");
        let calls_per_reconcile = Histogram::with_opts(calls.buckets(CALLS.to_vec()))?;
        registry.register(Box::new(calls_per_reconcile.clone()))?;
        Ok(Self {
            reconcile_seconds,
            calls_per_reconcile,
            writes: counter("writes_total", "Writes to the API server.", &["kind", "verb", "outcome"])?,
            reads: counter("reads_total", "Reads from the API server, watches apart.", &["kind", "outcome"])?,
            engine_calls: counter(
                "engine_calls_total",
                "Calls of engines' admin interface.",
                &["call", "outcome"],
            )?,
            steps: counter("steps_total", "Steps of plans, by what became of them.", &["step", "outcome"])?,
            watch_errors: counter(
                "watch_errors_total",
                "Watches that broke and were begun again.",
                &["kind"],
            )?,
            queue_depth: gauge("queue_depth", "Objects waiting for a reconcile.")?,
            leader: gauge("leader", "1 while this process holds the lease.")?,
            registry,
        })
    }

    pub fn reconciled(&self, outcome: &str, took: Duration, calls: u32) {
        self.reconcile_seconds.with_label_values(&[outcome]).observe(took.as_secs_f64());
        self.calls_per_reconcile.observe(f64::from(calls));
    }

    pub fn wrote(&self, kind: &str, verb: &str, outcome: &str) {
        self.writes.with_label_values(&[kind, verb, outcome]).inc();
    }

    pub fn read(&self, kind: &str, outcome: &str) {
        self.reads.with_label_values(&[kind, outcome]).inc();
    }

    pub fn called_engine(&self, call: &str, outcome: &str) {
        self.engine_calls.with_label_values(&[call, outcome]).inc();
    }

    pub fn stepped(&self, step: &str, outcome: &str) {
        self.steps.with_label_values(&[step, outcome]).inc();
    }

    pub fn watch_broke(&self, kind: &str) {
        self.watch_errors.with_label_values(&[kind]).inc();
    }

    /// Shows every `ServingCluster` that `look` finds each time that the page is read, until what is returned is dropped.
    ///
    /// # Errors
    /// When they are shown already.
    pub fn show(
        &self,
        look: impl Fn() -> Vec<ShownCluster> + Send + Sync + 'static,
    ) -> Result<Showing, prometheus::Error> {
        Clusters::new(Arc::new(look))?.show(&self.registry)
    }

    /// The page that Prometheus reads.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_on_the_page_once_something_happened() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciled("ok", Duration::from_millis(3), 2);
        metrics.wrote("Pod", "create", "ok");
        metrics.read("Secret", "not_found");
        metrics.called_engine("drain", "ok");
        metrics.stepped("create", "written");
        metrics.watch_broke("Pod");
        metrics.leader.set(1);
        let page = metrics.render();
        for line in [
            "shoal_operator_reconcile_duration_seconds_count{outcome=\"ok\"} 1",
            "shoal_operator_reconcile_api_calls_sum 2",
            "shoal_operator_writes_total{kind=\"Pod\",outcome=\"ok\",verb=\"create\"} 1",
            "shoal_operator_reads_total{kind=\"Secret\",outcome=\"not_found\"} 1",
            "shoal_operator_engine_calls_total{call=\"drain\",outcome=\"ok\"} 1",
            "shoal_operator_steps_total{outcome=\"written\",step=\"create\"} 1",
            "shoal_operator_watch_errors_total{kind=\"Pod\"} 1",
            "shoal_operator_queue_depth 0",
            "shoal_operator_leader 1",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
