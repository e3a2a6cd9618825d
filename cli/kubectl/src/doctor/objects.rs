//! The objects of a fleet: what the operator says, pods, policies, claims, the namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Namespace, PersistentVolumeClaim, Pod},
    networking::v1::NetworkPolicy,
};
use kube::{Api, Error, ResourceExt as _, api::ListParams};
use shoal_crds::{condition, labels};

use super::Check;
use crate::{
    cluster::{Connection, Fleet, Unseen, component, pages, words},
    view::{FleetView, PodView},
};

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

pub(super) async fn objects(connection: &Connection, fleet: &Fleet) -> Vec<Check> {
    let namespace = fleet.cluster.namespace().unwrap_or_default();
    let view = FleetView::from(fleet);
    let mut checks = vec![said(&view)];
    checks.extend(pods(&view));
    checks.extend(policies(connection, fleet, &namespace).await);
    checks.extend(claim(connection, fleet, &namespace).await);
    checks.push(security(connection, &namespace).await);
    checks
}

/// What the operator says of the cluster.
fn said(view: &FleetView) -> Check {
    if view.observed_generation < view.generation {
        return Check::fail(
            "status",
            format!("generation {} is not observed yet ({} is)", view.generation, view.observed_generation),
            "see the operator above: it is away, or installed for another namespace only (clusterWide=false)",
        );
    }
    let remedy = match view.health {
        condition::READY => return Check::ok("status", view.reason()),
        condition::STALLED => "a person has to do what the message says",
        condition::PROGRESSING => "wait: kubectl shoal status shows what is moving",
        _ => "see the checks of pods, gateway and engines below",
    };
    let found = format!("{}: {}", view.health, view.reason());
    match view.health {
        condition::PROGRESSING => Check::note("status", found, remedy),
        _ => Check::fail("status", found, remedy),
    }
}

fn pods(view: &FleetView) -> Vec<Check> {
    if view.pods.is_empty() {
        return vec![Check::fail(
            "pods",
            "there are none",
            "see the operator and the events: kubectl shoal events",
        )];
    }
    let checks: Vec<Check> = view.pods.iter().filter_map(|pod| of_pod(view, pod)).collect();
    if checks.is_empty() {
        let instances = view.pods.iter().filter(|pod| pod.is_instance()).count();
        let found = format!("{instances} instances and {} gateways run", view.pods.len() - instances);
        return vec![Check::ok("pods", found)];
    }
    checks
}

/// What is wrong with a pod, if anything.
fn of_pod(view: &FleetView, pod: &PodView) -> Option<Check> {
    let found = format!("{} {}: {}", pod.pod, pod.state, pod.why);
    let found = found.trim_end_matches(": ").to_owned();
    let logs =
        format!("kubectl shoal logs {} -n {} --instance {} --previous", view.name, view.namespace, pod.pod);
    Some(match pod.state {
        "Ready" => return None,
        "Starting" | "Draining" | "Stopping" => Check::note("pods", found, "wait: it is on its way"),
        "Pending" if pod.why.contains("persistentvolumeclaim") => {
            Check::fail("pods", found, "see the check of the claim below")
        }
        "Pending" => {
            Check::fail("pods", found, "give it room: nodes, quota, or a smaller spec.engine.kvMemory")
        }
        "NoImage" => Check::fail(
            "pods",
            found,
            "make the image pullable: name and tag in the chart's values, load it, or a pull secret",
        ),
        "Crashed" | "Ended" => {
            let hint = if pod.why.contains("memory") { "; give it more memory" } else { "" };
            Check::fail("pods", found, format!("{logs}{hint}"))
        }
        _ => Check::fail("pods", found, format!("kubectl describe pod {} -n {}", pod.pod, view.namespace)),
    })
}

async fn policies(connection: &Connection, fleet: &Fleet, namespace: &str) -> Vec<Check> {
    let mut unseen = Unseen::default();
    let api: Api<NetworkPolicy> = Api::namespaced(connection.client.clone(), namespace);
    let place = format!(" in namespace {namespace}");
    let all = unseen
        .look("list", "networkpolicies.networking.k8s.io", &place, pages(&api, ListParams::default()))
        .await;
    match unseen.lines().first() {
        Some(line) => vec![Check::unseen("network policies", line)],
        None => of_policies(&all, &fleet.cluster.name_any(), &fleet.pods),
    }
}

fn of_policies(all: &[NetworkPolicy], cluster: &str, pods: &[Pod]) -> Vec<Check> {
    let own = |policy: &&NetworkPolicy| {
        policy.labels().get(labels::CLUSTER).is_some_and(|name| name == cluster)
            && policy.labels().contains_key(labels::MANAGED_BY)
    };
    let mut checks = Vec::new();
    for part in [labels::INSTANCE_COMPONENT, labels::GATEWAY_COMPONENT] {
        let covers = |policy: &NetworkPolicy| {
            let example = BTreeMap::from([
                (labels::CLUSTER.to_owned(), cluster.to_owned()),
                (labels::COMPONENT.to_owned(), part.to_owned()),
            ]);
            selects(policy, &example)
        };
        if !all.iter().filter(own).any(covers) {
            checks.push(Check::fail(
                "network policies",
                format!("none guards the {part}s"),
                "the operator makes them: see its check above",
            ));
        }
    }
    let foreign = all.iter().filter(|policy| !own(policy));
    for policy in foreign.filter(|policy| cuts_off(policy, pods)) {
        checks.push(Check::note(
            "network policies",
            format!("{} also limits what the gateways may reach", policy.name_any()),
            "it must let them reach the API server, DNS and the instances' port 7070",
        ));
    }
    if checks.is_empty() {
        checks.push(Check::ok("network policies", "instances and gateways have theirs"));
    }
    checks
}

/// Only by labels; the operator's and most others' selectors have no expressions.
fn selects(policy: &NetworkPolicy, pod: &BTreeMap<String, String>) -> bool {
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone()).unwrap_or_default();
    let plain = selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    plain && selector.match_labels.iter().flatten().all(|(key, value)| pod.get(key) == Some(value))
}

/// A policy of somebody else that limits where gateways may connect to. Ingress rules only add.
fn cuts_off(policy: &NetworkPolicy, pods: &[Pod]) -> bool {
    let types = policy.spec.iter().flat_map(|spec| spec.policy_types.iter().flatten());
    let mut gateways = pods.iter().filter(|pod| component(pod) == Some(labels::GATEWAY_COMPONENT));
    types.into_iter().any(|kind| kind == "Egress") && gateways.any(|pod| selects(policy, pod.labels()))
}

async fn claim(connection: &Connection, fleet: &Fleet, namespace: &str) -> Option<Check> {
    let name = fleet.cluster.spec.model.source.claim.as_deref()?;
    let api: Api<PersistentVolumeClaim> = Api::namespaced(connection.client.clone(), namespace);
    Some(match api.get_opt(name).await {
        Ok(Some(found)) => bound(&found),
        Ok(None) => Check::fail(
            "claim",
            format!("PersistentVolumeClaim {name} of spec.model.source.claim does not exist"),
            format!("create it in namespace {namespace}, with the model in it"),
        ),
        Err(Error::Api(status)) if status.code == 403 => {
            Check::unseen("claim", format!("forbidden: get persistentvolumeclaims in namespace {namespace}"))
        }
        Err(error) => Check::unseen("claim", words(&error)),
    })
}

fn bound(claim: &PersistentVolumeClaim) -> Check {
    let name = claim.name_any();
    let phase = claim.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
    if phase != "Bound" {
        let found = format!("PersistentVolumeClaim {name} is {phase}");
        return Check::fail("claim", found, format!("kubectl describe persistentvolumeclaim {name}"));
    }
    if modes.iter().all(|mode| mode.starts_with("ReadWriteOnce")) {
        return Check::note(
            "claim",
            format!("PersistentVolumeClaim {name} is bound, for one node at a time ({})", modes.join(", ")),
            "instances and gateways on other nodes need ReadOnlyMany or ReadWriteMany",
        );
    }
    Check::ok("claim", format!("PersistentVolumeClaim {name} is bound ({})", modes.join(", ")))
}

async fn security(connection: &Connection, namespace: &str) -> Check {
    const SUBJECT: &str = "Pod Security";
    let api: Api<Namespace> = Api::all(connection.client.clone());
    match api.get(namespace).await {
        Ok(found) => match found.labels().get(ENFORCE).map(String::as_str) {
            Some("restricted") => Check::ok(SUBJECT, format!("namespace {namespace} enforces restricted")),
            other => Check::note(
                SUBJECT,
                format!("namespace {namespace} enforces {}", other.unwrap_or("nothing")),
                format!(
                    "a fleet meets restricted: kubectl label --overwrite namespace {namespace} {ENFORCE}=restricted"
                ),
            ),
        },
        Err(Error::Api(status)) if status.code == 403 => {
            Check::unseen(SUBJECT, format!("forbidden: get namespaces {namespace}"))
        }
        Err(error) => Check::unseen(SUBJECT, words(&error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::text, *};
    use crate::view::fixtures;

    fn policy(name: &str, own: bool, selector: &serde_json::Value, types: &[&str]) -> NetworkPolicy {
        let labels = if own {
            json!({ "shoal.dev/cluster": "chat", "app.kubernetes.io/managed-by": "shoal-operator" })
        } else {
            json!({})
        };
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "spec": { "podSelector": { "matchLabels": selector }, "policyTypes": types }
        }))
        .unwrap()
    }

    #[test]
    fn every_pod_in_trouble_is_named_with_a_remedy() {
        let view = FleetView::from(&fixtures::fleet());
        let mut checks = vec![said(&view)];
        checks.extend(pods(&view));
        insta::assert_snapshot!(text(&checks));
    }

    #[test]
    fn a_missing_policy_fails_and_a_foreign_one_on_gateways_is_noted() {
        let part = |part: &str| json!({ "shoal.dev/cluster": "chat", "app.kubernetes.io/component": part });
        let instances = policy("chat-instances", true, &part("instance"), &["Ingress", "Egress"]);
        let gateway = policy("chat-gateway", true, &part("gateway"), &["Ingress"]);
        let deny = policy("default-deny", false, &json!({}), &["Ingress", "Egress"]);
        let pods = fixtures::fleet().pods;
        let told = |all: &[NetworkPolicy]| -> Vec<String> {
            of_policies(all, "chat", &pods).into_iter().map(|check| check.found).collect()
        };
        assert_eq!(told(&[instances.clone(), gateway.clone()]), ["instances and gateways have theirs"]);
        assert_eq!(told(std::slice::from_ref(&instances)), ["none guards the gateways"]);
        assert_eq!(
            told(&[instances, gateway, deny]),
            ["default-deny also limits what the gateways may reach"]
        );
    }

    #[test]
    fn a_claim_must_be_bound_and_readable_from_every_node() {
        let claim = |phase: &str, mode: &str| {
            let object = json!({ "metadata": { "name": "models" }, "spec": { "accessModes": [mode] },
                "status": { "phase": phase } });
            bound(&serde_json::from_value(object).unwrap()).outcome
        };
        assert_eq!(claim("Pending", "ReadOnlyMany"), super::super::Outcome::Fail);
        assert_eq!(claim("Bound", "ReadWriteOnce"), super::super::Outcome::Note);
        assert_eq!(claim("Bound", "ReadOnlyMany"), super::super::Outcome::Ok);
    }
}
