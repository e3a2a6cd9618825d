//! What is true of each `ServingCluster`. It is read when Prometheus asks, from what this process knows: what is deleted
//! is gone from the page with it, and a process that does not lead tells nothing.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use shoal_crds::condition::{DEGRADED, PROGRESSING, READY, STALLED};

/// The conditions that are shown; kstatus' Reconciling says nothing more.
pub const SHOWN: [&str; 4] = [READY, PROGRESSING, DEGRADED, STALLED];

/// One `ServingCluster`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCluster {
    pub namespace: String,
    pub name: String,
    /// Which of the conditions above are True.
    pub holding: Vec<&'static str>,
    pub certificate: Option<ShownCertificate>,
}

/// Unix times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownCertificate {
    pub renewal: i64,
    pub ends: i64,
}

type Look = dyn Fn() -> Vec<ShownCluster> + Send + Sync;

#[derive(Clone)]
pub(super) struct Clusters {
    look: Arc<Look>,
    condition: IntGaugeVec,
    certificate_renewal: IntGaugeVec,
    certificate_expiration: IntGaugeVec,
    /// Two pages at once would mix.
    page: Arc<Mutex<()>>,
}

/// On the page until it is dropped.
pub struct Showing {
    registry: Registry,
    clusters: Clusters,
}

impl fmt::Debug for Showing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Showing(..)")
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        // It was registered, so this cannot fail.
        let _ = self.registry.unregister(Box::new(self.clusters.clone()));
    }
}

impl Clusters {
    pub(super) fn new(look: Arc<Look>) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        Ok(Self {
            look,
            condition: gauge(
                "serving_cluster_condition",
                "1 while this condition of the ServingCluster is True.",
                &["namespace", "serving_cluster", "condition"],
            )?,
            certificate_renewal: gauge(
                "certificate_renewal_timestamp_seconds",
                "When the certificate of the ServingCluster is due to be renewed.",
                &["namespace", "serving_cluster"],
            )?,
            certificate_expiration: gauge(
                "certificate_expiration_timestamp_seconds",
                "When the certificate of the ServingCluster ends if it is not renewed.",
                &["namespace", "serving_cluster"],
            )?,
            page: Arc::default(),
        })
    }

    pub(super) fn show(self, registry: &Registry) -> Result<Showing, prometheus::Error> {
        registry.register(Box::new(self.clone()))?;
        Ok(Showing { registry: registry.clone(), clusters: self })
    }

    fn all(&self) -> [&IntGaugeVec; 3] {
        [&self.condition, &self.certificate_renewal, &self.certificate_expiration]
    }

    fn set(&self, cluster: &ShownCluster) {
        let ShownCluster { namespace, name, holding, certificate } = cluster;
        let labels = [namespace.as_str(), name.as_str()];
        for kind in SHOWN {
            let gauge = self.condition.with_label_values(&[labels[0], labels[1], kind]);
            gauge.set(i64::from(holding.contains(&kind)));
        }
        if let Some(ShownCertificate { renewal, ends }) = *certificate {
            self.certificate_renewal.with_label_values(&labels).set(renewal);
            self.certificate_expiration.with_label_values(&labels).set(ends);
        }
    }
}

impl Collector for Clusters {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _page = self.page.lock();
        self.all().into_iter().for_each(IntGaugeVec::reset);
        for cluster in (self.look)() {
            self.set(&cluster);
        }
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn cluster(name: &str, holding: &[&'static str]) -> ShownCluster {
        let certificate = Some(ShownCertificate { renewal: 20, ends: 30 });
        ShownCluster {
            namespace: "team".to_owned(),
            name: name.to_owned(),
            holding: holding.to_vec(),
            certificate,
        }
    }

    #[test]
    fn each_cluster_is_on_the_page_for_as_long_as_it_is_there_and_this_process_leads() {
        let metrics = Metrics::new().unwrap();
        let there = Arc::new(Mutex::new(vec![cluster("chat", &[READY, DEGRADED]), cluster("code", &[])]));
        let seen = Arc::clone(&there);
        let showing = metrics.show(move || seen.lock().clone()).unwrap();
        let page = metrics.render();
        let labels = r#"namespace="team",serving_cluster="chat""#;
        for line in [
            r#"condition{condition="Ready",namespace="team",serving_cluster="chat"} 1"#,
            r#"condition{condition="Degraded",namespace="team",serving_cluster="chat"} 1"#,
            r#"condition{condition="Stalled",namespace="team",serving_cluster="chat"} 0"#,
            r#"condition{condition="Ready",namespace="team",serving_cluster="code"} 0"#,
        ] {
            assert!(page.contains(&format!("shoal_operator_serving_cluster_{line}\n")), "{line}\n{page}");
        }
        for line in [
            format!("renewal_timestamp_seconds{{{labels}}} 20"),
            format!("expiration_timestamp_seconds{{{labels}}} 30"),
        ] {
            assert!(page.contains(&format!("shoal_operator_certificate_{line}\n")), "{line}\n{page}");
        }

        there.lock().remove(0);
        let page = metrics.render();
        assert!(!page.contains("\"chat\"") && page.contains("\"code\""), "{page}");
        drop(showing);
        assert!(!metrics.render().contains("\"code\""));
        metrics.show(Vec::new).unwrap();
    }
}
