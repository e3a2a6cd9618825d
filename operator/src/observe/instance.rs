//! Pods as instances: which pod an instance is now, and what its marks say.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use shoal_plan::{CrashHistory, Instance, Role};

use super::{
    phase,
    pod::{self, ENGINE_CONTAINER, State, WatchedPod},
};
use crate::{
    actuate::{Answer, Target},
    calls::Identity,
    children::{GRPC_PORT, METRICS_PORT},
    clock,
    fleet::controller_uid,
    labels,
    names::Names,
};

/// One instance by its newest pod.
#[derive(Debug, Clone)]
pub struct InstanceFacts {
    pub name: String,
    pub identity: Identity,
    /// UID of the `ServingCluster` that controls it.
    pub controller: String,
    pub attempt: u32,
    pub role: Role,
    pub template: String,
    pub model: String,
    pub created: Timestamp,
    pub crashes: CrashHistory,
    pub state: State,
    pub draining: Option<Timestamp>,
    pub labels: BTreeMap<String, String>,
    /// gRPC, once the pod has an address.
    pub address: Option<String>,
    /// gRPC is within mutual TLS, as the engine was started.
    pub tls: bool,
}

impl InstanceFacts {
    /// Past its start-up probe.
    pub fn runs(&self) -> bool {
        matches!(self.state, State::Started { .. })
    }

    /// What to ask, if it can be asked.
    pub fn target(&self) -> Option<Target> {
        let address = self.address.clone().filter(|_| self.runs())?;
        let State::Started { since } = self.state else { return None };
        let Identity { name, uid, .. } = self.identity.clone();
        let (role, draining, tls) = (self.role, self.draining.is_some(), self.tls);
        Some(Target { pod: name, uid, address, since, role, draining, tls })
    }

    /// Where its fetching step tells how far it is.
    pub(super) fn fetching(&self) -> Option<String> {
        let address = self.address.as_ref().filter(|_| matches!(self.state, State::Fetching { .. }))?;
        let (ip, _) = address.rsplit_once(':')?;
        Some(format!("{ip}:{METRICS_PORT}"))
    }

    /// As the planner sees it.
    pub(super) fn observed(&self, answer: Option<&Answer>, now: Timestamp) -> Instance {
        let (phase, in_flight) = phase::of(&self.state, self.role, self.draining, answer, now);
        Instance {
            name: self.name.clone(),
            role: self.role,
            template: self.template.clone(),
            model: self.model.clone(),
            created: self.created,
            crashes: self.crashes,
            phase,
            in_flight,
        }
    }

    /// None for a pod that no cluster controls, or whose name is not an instance's: this operator did not make it.
    pub(super) fn of(pod: &WatchedPod) -> Option<Self> {
        let controller = controller_uid(&pod.metadata)?.to_owned();
        let none = BTreeMap::new();
        let (name, attempt) = Names::instance_of(pod.metadata.name.as_deref()?)?;
        let marks = pod.metadata.labels.as_ref().unwrap_or(&none);
        let notes = pod.metadata.annotations.as_ref().unwrap_or(&none);
        let number = |key| notes.get(key).and_then(|text| text.parse::<u32>().ok());
        let text = |from: &BTreeMap<String, String>, key| from.get(key).cloned().unwrap_or_default();
        let state = pod::state(pod, ENGINE_CONTAINER);
        let inherited = CrashHistory { count: number(labels::CRASHES).unwrap_or(0) };
        Some(Self {
            name: name.to_owned(),
            identity: Identity::of(&pod.metadata),
            controller,
            attempt,
            // A pod that lost its mark decodes, as any instance can; the planner sees to the rest.
            role: labels::role(marks).unwrap_or(Role::Decode),
            // A pod whose marks are gone counts as made from earlier settings.
            template: if marks.contains_key(labels::MODEL) {
                text(notes, labels::TEMPLATE)
            } else {
                String::new()
            },
            model: text(marks, labels::MODEL),
            created: pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, clock::of),
            crashes: crashes(inherited, &state, pod::restarts(pod, ENGINE_CONTAINER)),
            draining: notes.get(labels::DRAINING_SINCE).and_then(|text| text.parse().ok()),
            address: address(pod),
            tls: pod::knows_tls(pod),
            labels: marks.clone(),
            state,
        })
    }
}

fn address(pod: &WatchedPod) -> Option<String> {
    let ip = pod.status.as_ref()?.pod_ip.as_deref()?.parse::<std::net::IpAddr>().ok()?;
    Some(std::net::SocketAddr::new(ip, GRPC_PORT as u16).to_string())
}

/// Crashes that this pod inherited, those that its node mended by starting it again, and the last one, if it
/// ended for good. All of it is kept by the API server, none by the operator.
fn crashes(inherited: CrashHistory, state: &State, restarts: u32) -> CrashHistory {
    let before = CrashHistory { count: inherited.count.saturating_add(restarts) };
    match state {
        State::Ended { at, ran, .. } => before.after_crash(at.checked_sub(*ran).ok(), *at),
        _ => before,
    }
}

/// The newest pod of each instance, by its name, and the others that nobody has asked to end yet.
pub(super) fn newest(pods: Vec<Arc<InstanceFacts>>) -> (Vec<Arc<InstanceFacts>>, Vec<Identity>) {
    let mut newest: BTreeMap<String, Arc<InstanceFacts>> = BTreeMap::new();
    let mut superseded = Vec::new();
    let mut found = pods;
    found.sort_by_key(|facts| facts.attempt);
    for facts in found {
        if let Some(older) = newest.insert(facts.name.clone(), facts)
            && !matches!(older.state, State::Stopping { .. })
        {
            superseded.push(older.identity.clone());
        }
    }
    (newest.into_values().collect(), superseded)
}
