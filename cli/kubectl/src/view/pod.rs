//! One pod: where it is in its life, and why.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod, PodStatus,
};
use kube::ResourceExt as _;
use serde::Serialize;
use shoal_crds::labels;
use shoal_plan::last_words;

use super::{event::one_line, time::at};
use crate::cluster::{Exposition, component};

/// An instance's pod or a gateway's.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodView {
    pub(crate) pod: String,
    /// prefill, decode, or gateway.
    pub(crate) role: String,
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) why: String,
    pub(crate) node: String,
    pub(crate) image: String,
    /// The image's tag or, without one, the start of its digest.
    pub(crate) version: String,
    pub(crate) restarts: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) load: Option<Load>,
}

/// What an engine has to do, by its own word.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Load {
    pub(crate) running: f64,
    pub(crate) waiting: f64,
    pub(crate) queued_prefill_tokens: f64,
    pub(crate) pages_used: f64,
    pub(crate) pages_cached: f64,
    pub(crate) pages_total: f64,
    pub(crate) draining: bool,
}

impl Load {
    /// None when these are not an engine's figures.
    pub(crate) fn of(figures: &Exposition) -> Option<Self> {
        let value = |name: &str| figures.value(&format!("shoal_engine_{name}")).unwrap_or_default();
        let pages = |state| figures.under("shoal_engine_kv_pages", "state", state).unwrap_or_default();
        Some(Self {
            running: figures.value("shoal_engine_running_sequences")?,
            waiting: value("waiting_sequences"),
            queued_prefill_tokens: value("queued_prefill_tokens"),
            pages_used: pages("used"),
            pages_cached: pages("cached"),
            pages_total: pages("used") + pages("cached") + pages("free"),
            draining: value("draining") > 0.0,
        })
    }

    /// Share of the pages that running requests hold.
    pub(crate) fn kv_use(&self) -> f64 {
        if self.pages_total > 0.0 { self.pages_used / self.pages_total } else { 0.0 }
    }
}

impl PodView {
    pub(crate) fn of(pod: &Pod, figures: Option<&Exposition>) -> Self {
        let (state, why) = state(pod);
        let spec = pod.spec.as_ref();
        let container = spec.and_then(|spec| spec.containers.first());
        let image = container.and_then(|found| found.image.clone()).unwrap_or_default();
        let role = match component(pod) {
            Some(labels::INSTANCE_COMPONENT) => pod.labels().get(labels::ROLE).cloned().unwrap_or_default(),
            other => other.unwrap_or_default().to_owned(),
        };
        Self {
            pod: pod.name_any(),
            role,
            state,
            why,
            node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            version: version(&image),
            image,
            restarts: main_container(pod).map_or(0, |found| found.restart_count),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| at(time.0)),
            load: figures.and_then(Load::of),
        }
    }

    pub(crate) fn is_instance(&self) -> bool {
        self.role != labels::GATEWAY_COMPONENT
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state == READY
    }
}

fn version(image: &str) -> String {
    if let Some((_, digest)) = image.split_once("@sha256:") {
        return format!("sha256:{}", digest.chars().take(12).collect::<String>());
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').map_or("latest", |(_, tag)| tag).to_owned()
}

fn main_container(pod: &Pod) -> Option<&ContainerStatus> {
    let name = &pod.spec.as_ref()?.containers.first()?.name;
    pod.status.as_ref()?.container_statuses.iter().flatten().find(|found| &found.name == name)
}

const READY: &str = "Ready";

/// One word, and in more words what it waits for.
fn state(pod: &Pod) -> (&'static str, String) {
    if pod.metadata.deletion_timestamp.is_some() {
        return ("Stopping", String::new());
    }
    let status = pod.status.clone().unwrap_or_default();
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return ("Ended", ended(pod, &status));
    }
    if let Some(waits) = status.init_container_statuses.iter().flatten().find_map(unfinished) {
        return waits;
    }
    match main_container(pod) {
        Some(found) => match of_container(found) {
            (READY, _) if pod.annotations().contains_key(labels::DRAINING_SINCE) => {
                ("Draining", "admits nothing new and finishes what it has".to_owned())
            }
            other => other,
        },
        None => ("Pending", unscheduled(&status).unwrap_or_default()),
    }
}

/// An init container that the others wait for.
fn unfinished(found: &ContainerStatus) -> Option<(&'static str, String)> {
    let state = found.state.as_ref();
    let ended = state.and_then(|state| state.terminated.as_ref());
    if ended.is_some_and(|ended| ended.exit_code == 0) || found.started == Some(true) && found.ready {
        return None;
    }
    let (word, why) = of_container(found);
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let word = if word == READY { "Starting" } else { word };
    Some((word, format!("init container {}{why}", found.name)))
}

fn of_container(found: &ContainerStatus) -> (&'static str, String) {
    let last = found.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    match &found.state {
        Some(ContainerState { running: Some(_), .. }) if found.ready => (READY, String::new()),
        Some(ContainerState { running: Some(_), .. }) if found.started == Some(true) => {
            ("NotReady", "its readiness probe fails".to_owned())
        }
        Some(ContainerState { running: Some(_), .. }) => ("Starting", again(last)),
        Some(ContainerState { terminated: Some(terminated), .. }) => ("Crashed", exit(terminated)),
        Some(ContainerState { waiting: Some(waiting), .. }) => held_up(waiting, last, &found.image),
        _ => ("Pending", String::new()),
    }
}

/// It starts, and not for the first time.
fn again(last: Option<&ContainerStateTerminated>) -> String {
    last.map_or_else(String::new, |last| format!("again, after {}", exit(last)))
}

fn held_up(
    waiting: &ContainerStateWaiting,
    last: Option<&ContainerStateTerminated>,
    image: &str,
) -> (&'static str, String) {
    let message = one_line(waiting.message.as_deref().unwrap_or_default());
    match (waiting.reason.as_deref().unwrap_or_default(), last) {
        ("" | "ContainerCreating" | "PodInitializing", None) => ("Starting", message),
        ("CrashLoopBackOff" | "ContainerCreating" | "", Some(last)) => ("Crashed", exit(last)),
        ("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull", _) => {
            ("NoImage", format!("image {image} cannot be pulled: {message}"))
        }
        (reason, _) => ("HeldUp", format!("{reason}: {message}")),
    }
}

/// How a container ended, with what it said last.
fn exit(terminated: &ContainerStateTerminated) -> String {
    let how = match (terminated.reason.as_deref(), terminated.signal) {
        (Some("OOMKilled"), _) => "out of memory".to_owned(),
        (_, Some(signal)) if signal != 0 => format!("signal {signal}"),
        _ if terminated.exit_code > 128 => format!("signal {}", terminated.exit_code - 128),
        _ => format!("exit {}", terminated.exit_code),
    };
    match terminated.message.as_deref().and_then(last_words) {
        Some(words) => format!("{how}: {words}"),
        None => how,
    }
}

fn ended(pod: &Pod, status: &PodStatus) -> String {
    let container = main_container(pod).and_then(|found| found.state.as_ref()?.terminated.as_ref().map(exit));
    let told = status
        .reason
        .as_deref()
        .map(|reason| one_line(&format!("{reason}: {}", status.message.as_deref().unwrap_or_default())));
    told.or(container).unwrap_or_default()
}

fn unscheduled(status: &PodStatus) -> Option<String> {
    let mut conditions = status.conditions.iter().flatten();
    let found = conditions.find(|found| found.type_ == "PodScheduled" && found.status == "False")?;
    Some(format!("no node takes it: {}", one_line(found.message.as_deref().unwrap_or_default())))
}
