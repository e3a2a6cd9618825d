//! The user's part of a pod, read into Kubernetes' types and merged over the operator's own.
//!
//! What can be set is picked field by field: whatever else is written cannot reach a pod. What the operator needs
//! to hold is refused by name; the resource's own rules refuse most of it before (see `shoal_crds::PodTemplate`).

use std::collections::BTreeMap;

use k8s_openapi::{
    DeepMerge as _,
    api::core::v1::{Container, PodSpec, PodTemplateSpec, Volume},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use serde_json::{Value, json};
use shoal_crds::PodTemplate;

use super::container::{HELD_FOLDERS, HELD_VOLUMES, POD_IP_VARIABLE, held_ports};
use crate::{
    labels::{self, Component},
    observe::FETCH_CONTAINER,
};

/// Why a pod template cannot be used: the field within it, and what is wrong or allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct OverlayError {
    field: String,
    message: String,
}

impl OverlayError {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// What is added to a pod.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overlay {
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    pod: PodSpec,
}

impl Overlay {
    /// # Errors
    /// When a field is not Kubernetes' or is one that the operator holds.
    pub fn read(template: &PodTemplate, component: Component) -> Result<Self, OverlayError> {
        let PodTemplate(fields) = template;
        let mut read = PodTemplateSpec::default();
        for (name, value) in fields {
            match (name.as_str(), value) {
                ("metadata", value) => read.metadata = Some(typed(name, value)?),
                ("spec", Value::Object(spec)) => {
                    for (name, value) in spec {
                        let one: PodSpec = typed("spec", &json!({ name: value }))?;
                        read.spec.get_or_insert_default().merge_from(one);
                    }
                }
                _ => return Err(OverlayError::new(name, "must be metadata or spec, a mapping of fields")),
            }
        }
        let ObjectMeta { labels, annotations, .. } = read.metadata.unwrap_or_default();
        let overlay = Self { labels, annotations, pod: offered(read.spec.unwrap_or_default()) };
        overlay.check(component)?;
        Ok(overlay)
    }

    /// Of a template that `validate` has read before.
    pub(super) fn known(template: Option<&PodTemplate>, component: Component) -> Self {
        template.and_then(|template| Self::read(template, component).ok()).unwrap_or_default()
    }

    /// `metadata` and `pod` with this over them; labels and annotations of the operator's own stay as they are.
    pub(super) fn over(self, metadata: &mut ObjectMeta, pod: &mut PodSpec, own: &LabelSelector) {
        let Self { labels, annotations, pod: mut added } = self;
        for (mine, theirs) in [(&mut metadata.labels, labels), (&mut metadata.annotations, annotations)] {
            let mine = mine.get_or_insert_default();
            for (key, value) in theirs.into_iter().flatten() {
                mine.entry(key).or_insert(value);
            }
        }
        for spread in added.topology_spread_constraints.iter_mut().flatten() {
            spread.label_selector.get_or_insert_with(|| own.clone());
        }
        pod.merge_from(added);
    }

    fn check(&self, component: Component) -> Result<(), OverlayError> {
        let Self { labels, annotations, pod } = self;
        check_keys("metadata.labels", labels.as_ref())?;
        check_keys("metadata.annotations", annotations.as_ref())?;
        for volume in pod.volumes.iter().flatten() {
            check_volume(volume)?;
        }
        for (index, container) in pod.containers.iter().enumerate() {
            let field = format!("spec.containers[{index}]");
            if container.name == component.container() {
                check_own(&field, container)?;
            } else {
                check_other(&field, container, component)?;
            }
        }
        for (index, container) in pod.init_containers.iter().flatten().enumerate() {
            check_other(&format!("spec.initContainers[{index}]"), container, component)?;
        }
        Ok(())
    }
}

/// A value as Kubernetes' type, if that holds all of it.
fn typed<T: serde::de::DeserializeOwned + serde::Serialize>(
    field: &str,
    value: &Value,
) -> Result<T, OverlayError> {
    // Named by the one field of `spec` that is looked at.
    let inner = value.as_object().filter(|fields| field == "spec" && fields.len() == 1);
    let name = inner.and_then(|fields| fields.keys().next());
    let place = name.map_or_else(|| field.to_owned(), |name| format!("{field}.{name}"));
    let read: T =
        serde_json::from_value(value.clone()).map_err(|error| OverlayError::new(place, error.to_string()))?;
    let kept = serde_json::to_value(&read).unwrap_or_default();
    match lost(field, value, &kept) {
        Some(field) => Err(OverlayError::new(field, "is not a field of Kubernetes' own type")),
        None => Ok(read),
    }
}

/// The first place in what was written that the type did not keep.
fn lost(field: &str, written: &Value, kept: &Value) -> Option<String> {
    match (written, kept) {
        (Value::Null, _) => None,
        (Value::Object(fields), Value::Object(_)) => {
            fields.iter().find_map(|(name, value)| lost(&format!("{field}.{name}"), value, &kept[name]))
        }
        (Value::Array(items), Value::Array(_)) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| lost(&format!("{field}[{index}]"), item, &kept[index]))
        }
        (Value::Array(items), _) => (!items.is_empty()).then(|| field.to_owned()),
        // A quantity that was written as a number is kept as text.
        (Value::Number(number), Value::String(text)) => {
            (number.to_string() != *text).then(|| field.to_owned())
        }
        _ => (written != kept).then(|| field.to_owned()),
    }
}

/// What a user may set of a pod, and nothing else of it.
fn offered(pod: PodSpec) -> PodSpec {
    PodSpec {
        node_selector: pod.node_selector,
        tolerations: pod.tolerations,
        affinity: pod.affinity,
        topology_spread_constraints: pod.topology_spread_constraints,
        priority_class_name: pod.priority_class_name,
        runtime_class_name: pod.runtime_class_name,
        scheduler_name: pod.scheduler_name,
        image_pull_secrets: pod.image_pull_secrets,
        resource_claims: pod.resource_claims,
        volumes: pod.volumes,
        init_containers: pod.init_containers,
        containers: pod.containers,
        ..PodSpec::default()
    }
}

fn check_keys(field: &str, keys: Option<&BTreeMap<String, String>>) -> Result<(), OverlayError> {
    let held = keys.into_iter().flat_map(BTreeMap::keys).find(|key| labels::is_held(key));
    match held {
        Some(key) => Err(OverlayError::new(format!("{field}.{key}"), "is the operator's")),
        None => Ok(()),
    }
}

fn check_volume(volume: &Volume) -> Result<(), OverlayError> {
    if HELD_VOLUMES.contains(&volume.name.as_str()) {
        let message = format!("must be other volumes than {}, which is the operator's", volume.name);
        return Err(OverlayError::new("spec.volumes", message));
    }
    Ok(())
}

/// Of the operator's own container only what does not change what runs in it.
fn check_own(field: &str, container: &Container) -> Result<(), OverlayError> {
    let rest = Container {
        name: String::new(),
        resources: None,
        env: None,
        env_from: None,
        volume_mounts: None,
        volume_devices: None,
        ..container.clone()
    };
    if rest != Container::default() {
        let message = "must add to the operator's own container only resources, env, envFrom, volumeMounts and \
                       volumeDevices";
        return Err(OverlayError::new(field, message));
    }
    if container.env.iter().flatten().any(|variable| variable.name == POD_IP_VARIABLE) {
        let message = format!("must not set {POD_IP_VARIABLE}, which is the operator's");
        return Err(OverlayError::new(format!("{field}.env"), message));
    }
    for mount in container.volume_mounts.iter().flatten() {
        let path = mount.mount_path.trim_end_matches('/');
        let meets = |held: &&&str| is_within(path, held) || is_within(held, path);
        if let Some(held) = HELD_FOLDERS.iter().find(meets) {
            let message = format!("must not mount {path:?} over or within {held}, which is the operator's");
            return Err(OverlayError::new(format!("{field}.volumeMounts"), message));
        }
    }
    Ok(())
}

fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A container of the user's own: Services and policies find the operator's by name and number of their ports.
fn check_other(field: &str, container: &Container, component: Component) -> Result<(), OverlayError> {
    let held = |name: Option<&str>, number: i32| {
        held_ports(component).iter().any(|(held, taken)| name == Some(*held) || number == *taken)
    };
    if container.name == FETCH_CONTAINER {
        return Err(OverlayError::new(
            field,
            format!("must not be called {FETCH_CONTAINER}, which is the operator's"),
        ));
    }
    if container.image.is_none() {
        let message =
            format!("{:?} is no container of the operator's, so it must have an image", container.name);
        return Err(OverlayError::new(field, message));
    }
    let ports = container.ports.iter().flatten();
    match ports.into_iter().find(|port| held(port.name.as_deref(), port.container_port)) {
        Some(port) => {
            let message = format!("must not have port {}, which is the operator's", port.container_port);
            Err(OverlayError::new(format!("{field}.ports"), message))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
