//! One cluster with everything that a person asks first.

use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;
use shoal_crds::{Condition, ModelSource, RoleStatus, condition};

use super::{EventView, PodView, time::at};
use crate::cluster::Fleet;

const NOT_READY: &str = "NotReady";

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FleetView {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// Ready, Degraded, Progressing, Stalled, `NotReady`, or Unobserved while no operator has looked.
    pub(crate) health: &'static str,
    pub(crate) generation: i64,
    pub(crate) observed_generation: i64,
    pub(crate) model: String,
    pub(crate) source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    pub(crate) prefill: RoleStatus,
    pub(crate) decode: RoleStatus,
    pub(crate) conditions: Vec<Condition>,
    /// Gateways last.
    pub(crate) pods: Vec<PodView>,
    pub(crate) moving: Vec<Move>,
    /// Oldest first.
    pub(crate) events: Vec<EventView>,
    /// What could not be seen, and which right was missing.
    pub(crate) unseen: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<Timestamp>,
}

/// Something that is not yet, or no longer, what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Move {
    pub(crate) what: String,
    pub(crate) why: String,
}

impl From<&Fleet> for FleetView {
    fn from(fleet: &Fleet) -> Self {
        let cluster = &fleet.cluster;
        let status = cluster.status.clone().unwrap_or_default();
        let mut pods: Vec<PodView> =
            fleet.pods.iter().map(|pod| PodView::of(pod, fleet.figures.get(&pod.name_any()))).collect();
        pods.sort_by_key(|pod| !pod.is_instance());
        let events: Vec<EventView> = fleet.events.iter().map(EventView::from).collect();
        let source = &cluster.spec.model.source;
        let mut view = Self {
            namespace: cluster.namespace().unwrap_or_default(),
            name: cluster.name_any(),
            ready: status.is(condition::READY),
            health: "",
            generation: cluster.metadata.generation.unwrap_or_default(),
            observed_generation: status.observed_generation.unwrap_or_default(),
            model: cluster.spec.model.name.clone(),
            source: told(source),
            endpoint: status.endpoint,
            prefill: status.prefill,
            decode: status.decode,
            conditions: status.conditions,
            moving: Vec::new(),
            pods,
            events,
            unseen: fleet.unseen.lines().to_vec(),
            created: cluster.metadata.creation_timestamp.as_ref().map(|time| at(time.0)),
        };
        view.health = view.judged();
        view.moving = view.moves();
        view
    }
}

/// Every field of a source that is set, whatever kinds of sources there are.
fn told(source: &ModelSource) -> String {
    let value = serde_json::to_value(source).unwrap_or_default();
    let fields = value.as_object().into_iter().flatten().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        format!("{name} {value}")
    });
    fields.collect::<Vec<_>>().join(", ")
}

impl FleetView {
    pub(crate) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|found| found.type_ == kind)
    }

    fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|found| found.status == "True")
    }

    fn judged(&self) -> &'static str {
        match () {
            () if self.observed_generation == 0 => "Unobserved",
            () if self.is(condition::STALLED) => condition::STALLED,
            () if !self.ready && self.is(condition::DEGRADED) => NOT_READY,
            () if !self.ready && self.is(condition::PROGRESSING) => condition::PROGRESSING,
            () if !self.ready => NOT_READY,
            () if self.is(condition::DEGRADED) => condition::DEGRADED,
            () => condition::READY,
        }
    }

    /// The operator's reason for the health, if it gave one.
    pub(crate) fn reason(&self) -> String {
        let kind = match self.health {
            NOT_READY if self.is(condition::DEGRADED) => condition::DEGRADED,
            condition::STALLED | condition::PROGRESSING | condition::DEGRADED => self.health,
            _ => condition::READY,
        };
        match self.condition(kind) {
            Some(found) => format!("{}: {}", found.reason, found.message),
            None => "no operator has looked at it; kubectl shoal doctor says why".to_owned(),
        }
    }

    /// What is on its way, with the operator's words for it where it gave some.
    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.observed_generation != 0 && self.observed_generation < self.generation {
            moves.push(Move {
                what: format!("generation {}", self.generation),
                why: "the operator has not looked at the last change yet".to_owned(),
            });
        }
        for pod in self.pods.iter().filter(|pod| !pod.is_ready()) {
            let told = Some(pod.why.clone()).filter(|why| !why.is_empty());
            let why = told.or_else(|| self.told(&pod.pod)).unwrap_or_default();
            moves.push(Move { what: format!("{} {}", pod.pod, pod.state.to_lowercase()), why });
        }
        moves
    }

    /// What the operator said last of the pod's instance.
    fn told(&self, pod: &str) -> Option<String> {
        let (instance, _) = pod.rsplit_once('-')?;
        let about = |event: &&EventView| {
            event.object == format!("ServingCluster/{}", self.name)
                && event.message.split([' ', ':', ',']).any(|word| word == instance)
        };
        self.events.iter().rev().find(about).map(|event| event.message.clone())
    }
}
