//! The gateway as the planner sees it: one, whatever number of pods it has.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use shoal_plan::{CrashHistory, Gateway, GatewayTemplate, Phase, model_digest};

use super::pod::{self, State, WatchedPod};
use crate::{
    clock,
    fleet::Fleet,
    labels::{self, Component},
};

/// One of its pods that has not ended.
#[derive(Debug, Clone)]
pub struct GatewayPod {
    /// Digest of the model whose text it speaks.
    model: Option<String>,
    state: State,
    restarts: u32,
    /// Its own readiness is `/ready`: a request sent now would be answered.
    ready: bool,
    /// It calls engines within mutual TLS where they are so.
    tls: bool,
    pub(super) version: Option<String>,
}

impl GatewayPod {
    /// None for any other pod.
    pub(super) fn of(pod: &WatchedPod) -> Option<Self> {
        let marks = pod.metadata.labels.as_ref()?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let is_gateway =
            marks.get(labels::COMPONENT).map(String::as_str) == Some(Component::Gateway.as_str());
        (is_gateway && !matches!(phase, Some("Failed" | "Succeeded"))).then(|| Self {
            model: marks.get(labels::MODEL).cloned(),
            state: pod::state(pod, Component::Gateway.as_str()),
            restarts: pod::restarts(pod, Component::Gateway.as_str()),
            ready: is_ready(pod),
            tls: pod::knows_tls(pod),
            version: pod.metadata.resource_version.clone(),
        })
    }
}

#[derive(Debug, Clone)]
pub struct GatewayFacts {
    /// What the Deployment was last made of; absent if its note is gone.
    pub template: Option<GatewayTemplate>,
    /// Digest of the model whose text its pods speak; the old one until the last pod of it is gone, because
    /// instances of that model are needed as long.
    model: String,
    phase: Phase,
    crashes: CrashHistory,
    serving: bool,
    endpoint: String,
    trouble: Option<String>,
}

impl GatewayFacts {
    pub(super) fn observed(&self) -> Gateway {
        let Self { template, model, phase, crashes, serving, endpoint, trouble } = self;
        Gateway {
            model: model.clone(),
            port: template.as_ref().map_or(0, |template| template.port),
            phase: phase.clone(),
            crashes: *crashes,
            serving: *serving,
            endpoint: endpoint.clone(),
            rolls: true,
            trouble: trouble.clone(),
        }
    }
}

pub(super) fn facts(fleet: &Fleet, deployment: &Deployment, pods: &[Arc<GatewayPod>]) -> GatewayFacts {
    let notes = deployment.metadata.annotations.as_ref();
    let note = notes.and_then(|notes| notes.get(labels::GATEWAY_TEMPLATE));
    let template: Option<GatewayTemplate> = note.and_then(|text| serde_json::from_str(text).ok());
    let made_for = template.as_ref().map(|template| model_digest(&template.model)).unwrap_or_default();
    let created = deployment.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, clock::of);
    let port = template.as_ref().map_or(0, |template| template.port);
    GatewayFacts {
        model: spoken(pods, &made_for),
        phase: phase(deployment, pods, created),
        trouble: pods
            .iter()
            .find_map(|pod| trouble(&pod.state))
            .map(|(_, why)| why)
            .or_else(|| refusal(deployment)),
        crashes: CrashHistory { count: pods.iter().map(|pod| pod.restarts).max().unwrap_or(0) },
        serving: pods.iter().any(|pod| pod.ready),
        endpoint: format!("http://{}.{}.svc:{port}/v1", fleet.names().gateway(), fleet.namespace),
        template,
    }
}

/// No gateway is left that was started without certificates.
pub(super) fn all_know_tls(pods: &[Arc<GatewayPod>]) -> bool {
    pods.iter().all(|pod| pod.tls)
}

/// A model other than the Deployment's, while a pod still speaks it.
fn spoken(pods: &[Arc<GatewayPod>], made_for: &str) -> String {
    let models = pods.iter().filter_map(|pod| pod.model.as_ref());
    models.min_by_key(|model| *model == made_for).cloned().unwrap_or_else(|| made_for.to_owned())
}

/// Ready as soon as one pod is up; a pod in trouble decides only while none is.
fn phase(deployment: &Deployment, pods: &[Arc<GatewayPod>], created: Timestamp) -> Phase {
    if let Some(asked) = &deployment.metadata.deletion_timestamp {
        return Phase::Stopping { since: clock::of(asked) };
    }
    let up = pods.iter().filter_map(|pod| match &pod.state {
        State::Started { since } => Some(*since),
        _ => None,
    });
    let down =
        || pods.iter().find_map(|pod| trouble(&pod.state)).map(|(since, why)| Phase::Retrying { since, why });
    match up.min() {
        Some(since) => Phase::Ready { since },
        None => down().unwrap_or(Phase::Starting { since: created }),
    }
}

fn trouble(state: &State) -> Option<(Timestamp, String)> {
    match state {
        State::Retrying { since, why } => Some((*since, why.clone())),
        _ => None,
    }
}

/// Why the Deployment cannot make a pod: a quota, or a policy of the namespace.
fn refusal(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let failure =
        conditions.into_iter().find(|found| found.type_ == "ReplicaFailure" && found.status == "True");
    failure.and_then(|found| found.message.clone())
}

fn is_ready(pod: &WatchedPod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|found| found.type_ == "Ready" && found.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}
