//! Where a pod is in its life, from its status alone.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize};
use shoal_plan::last_words;

use crate::{clock, labels};

pub const ENGINE_CONTAINER: &str = "engine";
pub const FETCH_CONTAINER: &str = "fetch";
/// Characters of a message shown as a reason.
const SHOWN: usize = 300;

/// The part of a pod that is looked at. The rest, which is most of it, is skipped while it is read.
#[derive(kube::Resource, Serialize, Deserialize, Debug, Clone)]
#[resource(inherit = "Pod")]
pub struct WatchedPod {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub status: Option<PodStatus>,
}

impl From<Pod> for WatchedPod {
    fn from(pod: Pod) -> Self {
        Self { metadata: pod.metadata, status: pod.status }
    }
}

/// What the kubelet and the scheduler say of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Files of the model are being fetched, which takes as long as it takes.
    Fetching { since: Timestamp },
    /// On its way: scheduled, pulled, started, not yet past its start-up probe.
    Starting { since: Timestamp },
    /// Given to a node that has not taken note of it yet.
    Assigned { since: Timestamp },
    /// Past its start-up probe; it can be asked.
    Started { since: Timestamp },
    /// Somebody tries again by itself.
    Retrying { since: Timestamp, why: String },
    /// Ended for good: evicted, preempted, lost with its node.
    Ended { at: Timestamp, exit: String, ran: SignedDuration },
    /// Asked to end.
    Stopping { since: Timestamp },
}

/// The state of the pod by its container of that name.
pub(super) fn state(pod: &WatchedPod, container: &str) -> State {
    let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, clock::of);
    if let Some(deadline) = &pod.metadata.deletion_timestamp {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        let asked = clock::of(deadline).checked_sub(SignedDuration::from_secs(grace));
        return State::Stopping { since: asked.unwrap_or(created) };
    }
    let Some(status) = &pod.status else { return State::Starting { since: created } };
    let container = status.container_statuses.iter().flatten().find(|found| found.name == container);
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return ended(status, container, created);
    }
    if let Some(fetching) = fetching(status, created) {
        return fetching;
    }
    match container {
        Some(found) => of_container(found, created),
        None => {
            unscheduled(status).or_else(|| assigned(status)).unwrap_or(State::Starting { since: created })
        }
    }
}

/// What the step before the program does, until it is done.
fn fetching(status: &PodStatus, created: Timestamp) -> Option<State> {
    let steps = status.init_container_statuses.iter().flatten();
    let found = steps.into_iter().find(|found| found.name == FETCH_CONTAINER)?;
    let last = found.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let failed = |ended: &ContainerStateTerminated| State::Retrying {
        since: ended.finished_at.as_ref().map_or(created, clock::of),
        why: format!("the model cannot be fetched ({})", exit(ended)),
    };
    match (&found.state, last) {
        (Some(ContainerState { running: Some(running), .. }), _) => {
            Some(State::Fetching { since: running.started_at.as_ref().map_or(created, clock::of) })
        }
        (Some(ContainerState { terminated: Some(ended), .. }), _) => {
            (ended.exit_code != 0).then(|| failed(ended))
        }
        (Some(ContainerState { waiting: Some(_), .. }), Some(last)) => Some(failed(last)),
        (Some(ContainerState { waiting: Some(waiting), .. }), None) => {
            Some(held_up(waiting, None, &found.image, created))
        }
        _ => None,
    }
}

/// Whether its program was started with certificates, as was noted when the pod was made. It is never found out by
/// trying.
pub(super) fn knows_tls(pod: &WatchedPod) -> bool {
    let notes = pod.metadata.annotations.as_ref();
    notes.and_then(|notes| notes.get(labels::TLS)).is_some_and(|how| how == labels::MUTUAL)
}

/// Times that the node has started the container again.
pub(super) fn restarts(pod: &WatchedPod, container: &str) -> u32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let count = statuses.filter(|found| found.name == container).map(|found| found.restart_count).next();
    count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

fn of_container(found: &ContainerStatus, created: Timestamp) -> State {
    let last = found.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    match &found.state {
        Some(ContainerState { running: Some(running), .. }) => {
            let since = running.started_at.as_ref().map_or(created, clock::of);
            if found.started == Some(true) { State::Started { since } } else { State::Starting { since } }
        }
        Some(ContainerState { terminated: Some(terminated), .. }) => crashed(terminated, created),
        Some(ContainerState { waiting: Some(waiting), .. }) => held_up(waiting, last, &found.image, created),
        _ => State::Starting { since: created },
    }
}

fn held_up(
    waiting: &ContainerStateWaiting,
    last: Option<&ContainerStateTerminated>,
    image: &str,
    created: Timestamp,
) -> State {
    let reason = waiting.reason.as_deref().unwrap_or_default();
    match (reason, last) {
        ("" | "ContainerCreating" | "PodInitializing", None) => State::Starting { since: created },
        ("" | "ContainerCreating" | "CrashLoopBackOff", Some(last)) => crashed(last, created),
        // The kubelet goes back and forth between these two with texts that differ; one is enough.
        ("ErrImagePull" | "ImagePullBackOff", _) => {
            State::Retrying { since: created, why: format!("image {image} cannot be pulled") }
        }
        _ => State::Retrying { since: created, why: told(reason, waiting.message.as_deref()) },
    }
}

/// It ended and its node starts it again.
fn crashed(terminated: &ContainerStateTerminated, created: Timestamp) -> State {
    let since = terminated.finished_at.as_ref().map_or(created, clock::of);
    State::Retrying { since, why: format!("crashed ({})", exit(terminated)) }
}

fn ended(status: &PodStatus, container: Option<&ContainerStatus>, created: Timestamp) -> State {
    let terminated = container.and_then(|found| found.state.as_ref()?.terminated.as_ref());
    let time = |time: Option<&_>| time.map(clock::of);
    let finished = terminated.and_then(|terminated| time(terminated.finished_at.as_ref()));
    let changed =
        status.conditions.iter().flatten().filter_map(|c| time(c.last_transition_time.as_ref())).max();
    let at = finished.or(changed).unwrap_or(created);
    let began = terminated.and_then(|terminated| time(terminated.started_at.as_ref()));
    let exit = match (status.reason.as_deref(), terminated) {
        (Some(reason), _) => told(reason, status.message.as_deref()),
        (None, Some(terminated)) => exit(terminated),
        (None, None) => "gone".to_owned(),
    };
    State::Ended { at, exit, ran: began.map_or(SignedDuration::ZERO, |began| at.duration_since(began)) }
}

/// How a container ended, with what it said last.
fn exit(terminated: &ContainerStateTerminated) -> String {
    let how = match (terminated.reason.as_deref(), terminated.signal) {
        (Some("OOMKilled"), _) => "out of memory".to_owned(),
        (_, Some(signal)) if signal != 0 => format!("signal {signal}"),
        // As a shell counts it, and the container runtime too.
        _ if terminated.exit_code > 128 => format!("signal {}", terminated.exit_code - 128),
        _ => format!("exit {}", terminated.exit_code),
    };
    // A signal comes from outside: the log does not tell why.
    match terminated.message.as_deref().and_then(last_words).filter(|_| how.starts_with("exit")) {
        Some(words) => format!("{how}: {words}"),
        None => how,
    }
}

/// No node takes the pod.
fn unscheduled(status: &PodStatus) -> Option<State> {
    let conditions = status.conditions.iter().flatten();
    let refused = conditions
        .filter(|found| found.type_ == "PodScheduled" && found.status == "False")
        .find(|found| found.reason.as_deref() == Some("Unschedulable"))?;
    let since = refused.last_transition_time.as_ref().map(clock::of)?;
    Some(State::Retrying { since, why: told("no node has room", refused.message.as_deref()) })
}

/// A kubelet that takes a pod notes when, before it does anything else.
fn assigned(status: &PodStatus) -> Option<State> {
    let mut conditions = status.conditions.iter().flatten();
    let scheduled = conditions.find(|found| found.type_ == "PodScheduled" && found.status == "True")?;
    let since = scheduled.last_transition_time.as_ref().map(clock::of)?;
    status.start_time.is_none().then_some(State::Assigned { since })
}

fn told(reason: &str, message: Option<&str>) -> String {
    let whole = match message {
        Some(message) if !message.is_empty() => format!("{reason}: {message}"),
        _ => reason.to_owned(),
    };
    whole.chars().filter(|character| !character.is_control()).take(SHOWN).collect()
}
