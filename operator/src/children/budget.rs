//! How many gateways may be evicted at once.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use crate::{
    fleet::Fleet,
    labels::{self, Component},
};

/// One at a time; one that cannot serve does not hold a node back.
pub(super) fn gateway(fleet: &Fleet) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: fleet.object_meta(fleet.names().gateway()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(labels::selector(fleet.name(), Component::Gateway)),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
