//! What goes into the archive. One thing that cannot be seen is a line; the others follow.

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, LogParams},
    core::ApiResource,
};
use serde_json::Value;
use shoal_crds::{ServingCluster, labels};
use shoal_terminal::failure::Failure;

use super::Archive;
use crate::{
    cluster::{Connection, Fleet, Unseen, Wanted, component, engine_metrics, gateway_metrics, pages, words},
    command::{Versions, main_container},
    doctor,
    view::EventView,
};

const TOGETHER: usize = 8;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Of each log.
    pub(crate) log_bytes: u64,
}

/// Group, version, kind and plural of what carries a cluster's label. No Secrets, no `ConfigMaps`.
const KINDS: [(&str, &str, &str, &str); 11] = [
    ("shoal.dev", "v1alpha1", "ServingRole", "servingroles"),
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Service", "services"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
];
/// The same of the operator.
const OPERATORS: [(&str, &str, &str, &str); 2] =
    [("", "v1", "Pod", "pods"), ("apps", "v1", "Deployment", "deployments")];
/// What limits every pod of a namespace.
const LIMITS: [(&str, &str, &str, &str); 3] = [
    ("", "v1", "ResourceQuota", "resourcequotas"),
    ("", "v1", "LimitRange", "limitranges"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
];

pub(crate) async fn collect(
    connection: &Connection,
    cluster: ServingCluster,
    operator_namespace: &str,
    limits: Limits,
    archive: &mut Archive,
) -> Result<(), Failure> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let object = serde_json::to_value(&cluster).map_err(|error| Failure::failed(error.to_string()))?;
    archive.object("objects/servingcluster.yaml", object)?;
    archive.json("versions.json", &Versions::read(connection, operator_namespace).await)?;

    let of_cluster = format!("{}={name}", labels::CLUSTER);
    let of_operator = format!("{}={}", labels::NAME, labels::OPERATOR);
    objects(connection, archive, "objects", &namespace, &of_cluster, &KINDS).await?;
    objects(connection, archive, "namespace", &namespace, "", &LIMITS).await?;
    objects(connection, archive, "operator", operator_namespace, &of_operator, &OPERATORS).await?;

    let fleet = Fleet::read(connection, cluster.clone(), Wanted { figures: false, events: true }).await;
    archive.left_out_all(&fleet.unseen);
    let events: Vec<EventView> = fleet.events.iter().map(EventView::from).collect();
    archive.json("events.json", &events)?;
    logs(connection, archive, "logs", &fleet.pods, limits).await?;
    metrics(connection, archive, &fleet.pods).await?;
    let operators = pods(connection, operator_namespace, &of_operator, archive).await;
    logs(connection, archive, "operator/logs", &operators, limits).await?;
    archive.json("doctor.json", &doctor_of(connection, cluster, operator_namespace).await)
}

async fn doctor_of(
    connection: &Connection,
    cluster: ServingCluster,
    operator_namespace: &str,
) -> Vec<doctor::Check> {
    let mut checks = Box::pin(doctor::installation(connection, operator_namespace)).await.unwrap_or_default();
    checks.extend(Box::pin(doctor::fleet(connection, cluster)).await);
    checks
}

async fn objects(
    connection: &Connection,
    archive: &mut Archive,
    folder: &str,
    namespace: &str,
    selector: &str,
    kinds: &[(&str, &str, &str, &str)],
) -> Result<(), Failure> {
    let place = format!(" in namespace {namespace}");
    for (group, version, kind, plural) in kinds {
        let resource = resource(group, version, kind, plural);
        let api: Api<DynamicObject> = Api::namespaced_with(connection.client.clone(), namespace, &resource);
        let mut unseen = Unseen::default();
        let full = if group.is_empty() { (*plural).to_owned() } else { format!("{plural}.{group}") };
        let params = ListParams::default().labels(selector);
        for object in unseen.look("list", &full, &place, pages(&api, params)).await {
            let path = format!("{folder}/{plural}/{}.yaml", object.name_any());
            let value = serde_json::to_value(&object).map_err(|error| Failure::failed(error.to_string()))?;
            // Objects of a list do not say what they are.
            let mut whole = serde_json::json!({ "apiVersion": resource.api_version, "kind": resource.kind });
            if let (Some(whole), Value::Object(fields)) = (whole.as_object_mut(), value) {
                whole.extend(fields);
            }
            archive.object(&path, whole)?;
        }
        archive.left_out_all(&unseen);
    }
    Ok(())
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

async fn pods(connection: &Connection, namespace: &str, selector: &str, archive: &mut Archive) -> Vec<Pod> {
    let api: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let mut unseen = Unseen::default();
    let params = ListParams::default().labels(selector);
    let found = unseen.look("list", "pods", &format!(" in namespace {namespace}"), pages(&api, params)).await;
    archive.left_out_all(&unseen);
    found
}

/// The end of every container's log, and of the one before its last restart.
async fn logs(
    connection: &Connection,
    archive: &mut Archive,
    folder: &str,
    pods: &[Pod],
    limits: Limits,
) -> Result<(), Failure> {
    let wanted = pods.iter().flat_map(|pod| {
        let restarted = restarts(pod) > 0;
        [(pod, false), (pod, true)].into_iter().filter(move |(_, previous)| !previous || restarted)
    });
    let mut read = stream::iter(wanted)
        .map(|(pod, previous)| async move { (pod, previous, log(connection, pod, previous, limits).await) })
        .buffered(TOGETHER);
    while let Some((pod, previous, log)) = read.next().await {
        let suffix = if previous { ".previous" } else { "" };
        let path = format!("{folder}/{}{suffix}.log", pod.name_any());
        match log {
            Ok(text) => {
                let cut = text.len() as u64 > limits.log_bytes;
                if cut {
                    archive.left_out(format!("{path}: all but its last {} KiB", limits.log_bytes >> 10));
                }
                archive.text(&path, end(&text, limits.log_bytes))?;
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                let namespace = pod.namespace().unwrap_or_default();
                archive.left_out(format!("forbidden: get pods/log in namespace {namespace}"));
            }
            Err(error) => archive.left_out(format!("{path}: {}", words(&error))),
        }
    }
    Ok(())
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}

/// As many lines as the limit can hold if they are as long as usual; the server counts bytes from the front, so it
/// is asked for lines, with a bound on bytes above.
async fn log(
    connection: &Connection,
    pod: &Pod,
    previous: bool,
    limits: Limits,
) -> Result<String, kube::Error> {
    const USUAL_LINE: u64 = 100;
    let api: Api<Pod> = Api::namespaced(connection.client.clone(), &pod.namespace().unwrap_or_default());
    let parameters = LogParams {
        container: main_container(pod),
        previous,
        timestamps: true,
        tail_lines: i64::try_from(limits.log_bytes / USUAL_LINE).ok(),
        limit_bytes: i64::try_from(limits.log_bytes.saturating_mul(8)).ok(),
        ..LogParams::default()
    };
    api.logs(&pod.name_any(), &parameters).await
}

/// The end of a text, from the beginning of a line.
fn end(text: &str, bytes: u64) -> &str {
    let skip = text.len().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
    if skip == 0 {
        return text;
    }
    let line = text.as_bytes()[skip..].iter().position(|byte| *byte == b'\n');
    line.and_then(|line| text.get(skip + line + 1..)).unwrap_or_default()
}

async fn metrics(connection: &Connection, archive: &mut Archive, pods: &[Pod]) -> Result<(), Failure> {
    let mut read = stream::iter(pods)
        .map(|pod| async move {
            let gateway = component(pod) == Some(labels::GATEWAY_COMPONENT);
            let text = if gateway {
                gateway_metrics(connection, pod).await
            } else {
                engine_metrics(connection, pod).await
            };
            (pod.name_any(), text)
        })
        .buffered(TOGETHER);
    while let Some((name, text)) = read.next().await {
        match text {
            Ok(text) => archive.text(&format!("metrics/{name}.prom"), &text)?,
            Err(why) => archive.left_out(why),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_log_whole_lines_at_its_end_are_kept() {
        assert_eq!(end("one\ntwo\nthree\n", 100), "one\ntwo\nthree\n");
        assert_eq!(end("one\ntwo\nthree\n", 10), "three\n");
        assert_eq!(end("öne\ntwo\n", 7), "two\n");
        assert_eq!(end("nothing but one line", 5), "");
    }
}
