//! What the containers of both programs share: no rights, no writable disk, the fleet secret and the
//! certificates as files.

use k8s_openapi::{
    api::core::v1::{
        Capabilities, EmptyDirVolumeSource, EnvVar, EnvVarSource, HostPathVolumeSource, ObjectFieldSelector,
        PersistentVolumeClaimVolumeSource, PodSecurityContext, SeccompProfile, SecretVolumeSource,
        SecurityContext, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use shoal_crds::ModelSource;

use super::secret;
use crate::{fleet::Fleet, labels::Component, names::ObjectName};

/// Ports of an engine, in the pod's own network.
pub const GRPC_PORT: i32 = 7070;
pub(super) const DATA_PORT: i32 = 7071;
pub const METRICS_PORT: i32 = 7072;
/// Port of a gateway; its Service has the one from the spec.
pub(super) const HTTP_PORT: i32 = 8000;

/// The user of both images. Stated because a name in an image cannot be proved not to be root.
const USER: i64 = 65532;
/// The end of a crashed program's log becomes its termination message, which `observe` reads.
pub(super) const LAST_WORDS: &str = "FallbackToLogsOnError";
/// What users' parts of a pod may not touch.
pub(super) const HELD_VOLUMES: [&str; 3] = [FLEET_VOLUME, MODEL_VOLUME, TLS_VOLUME];
pub(super) const HELD_FOLDERS: [&str; 3] = [FLEET_FOLDER, MODEL_FOLDER, TLS_FOLDER];
pub(super) const POD_IP_VARIABLE: &str = "POD_IP";

const FLEET_VOLUME: &str = "fleet";
const MODEL_VOLUME: &str = "model";
pub(super) const MODEL_FOLDER: &str = "/var/lib/shoal/model";
const FLEET_FOLDER: &str = "/etc/shoal/fleet";
const TLS_VOLUME: &str = "tls";
const TLS_FOLDER: &str = "/etc/shoal/tls";

/// The restricted Pod Security Standard.
pub(super) fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        ..SecurityContext::default()
    }
}

pub(super) fn fleet_volume(fleet: &Fleet) -> Volume {
    secret_volume(FLEET_VOLUME, fleet.names().fleet_secret())
}

pub(super) fn fleet_mount() -> VolumeMount {
    secret_mount(FLEET_VOLUME, FLEET_FOLDER)
}

/// The kubelet exchanges the files when the Secret changes, and the programs follow.
pub(super) fn tls_volume(fleet: &Fleet) -> Volume {
    secret_volume(TLS_VOLUME, fleet.names().certificate())
}

pub(super) fn tls_mount() -> VolumeMount {
    secret_mount(TLS_VOLUME, TLS_FOLDER)
}

pub(super) fn tls_flags() -> Vec<String> {
    flags([("--tls-dir", TLS_FOLDER)])
}

/// Readable by the container's group alone.
fn secret_volume(name: &str, secret: ObjectName) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.into()),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn secret_mount(name: &str, folder: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: folder.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// What holds the model, unless an image does: the claim, the node's folder or, of what is fetched for one pod, the
/// node's disk for as long as the pod is there.
pub(super) fn model_volume(source: &ModelSource) -> Option<Volume> {
    let ModelSource { path: _, claim, host_path, download } = source;
    let claim = claim.clone().map(|claim_name| PersistentVolumeClaimVolumeSource {
        claim_name,
        read_only: download.is_none().then_some(true),
    });
    let empty_dir = (download.is_some() && claim.is_none()).then(EmptyDirVolumeSource::default);
    // A folder that is not there is a pod that does not start, not a new and empty one.
    let host_path =
        host_path.clone().map(|path| HostPathVolumeSource { path, type_: Some("Directory".to_owned()) });
    (claim.is_some() || host_path.is_some() || empty_dir.is_some()).then(|| Volume {
        name: MODEL_VOLUME.to_owned(),
        persistent_volume_claim: claim,
        host_path,
        empty_dir,
        ..Volume::default()
    })
}

pub(super) fn model_mount(source: &ModelSource) -> Option<VolumeMount> {
    model_volume(source).map(|_| VolumeMount {
        name: MODEL_VOLUME.to_owned(),
        mount_path: MODEL_FOLDER.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    })
}

/// Where the model is within a container: below what is mounted, or as the resource says.
pub(super) fn model_path(source: &ModelSource) -> String {
    let path = &source.path;
    if model_volume(source).is_some() { format!("{MODEL_FOLDER}{path}") } else { path.clone() }
}

/// Ports by which Services and policies find the operator's own container.
pub(super) fn held_ports(component: Component) -> &'static [(&'static str, i32)] {
    match component {
        Component::Instance => &[("grpc", GRPC_PORT), ("data", DATA_PORT), ("metrics", METRICS_PORT)],
        Component::Gateway => &[("http", HTTP_PORT)],
    }
}

pub(super) fn secret_file() -> String {
    format!("{FLEET_FOLDER}/{}", secret::KEY)
}

/// Program arguments; an array all the way, so no shell ever reads a value.
pub(super) fn flags<const N: usize>(pairs: [(&str, &str); N]) -> Vec<String> {
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), literal(value)]).collect()
}

/// The kubelet expands `$(NAME)` in arguments; `$$` stands for one `$`. Only the pod's address is meant to
/// be expanded.
pub(super) fn literal(value: &str) -> String {
    if value.starts_with(POD_IP) { value.to_owned() } else { value.replace('$', "$$") }
}

/// Expanded by the kubelet from the variable of that name.
pub(super) const POD_IP: &str = "$(POD_IP):";

pub(super) fn quantity(text: impl Into<String>) -> Quantity {
    Quantity(text.into())
}

pub(super) fn port(name: &str) -> IntOrString {
    IntOrString::String(name.to_owned())
}

/// The address of the pod, which arguments refer to.
pub(super) fn pod_ip() -> EnvVar {
    EnvVar {
        name: POD_IP_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "status.podIP".to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
