//! Who may talk to whom. Only an engine's own fleet reaches it, so that a certificate or the fleet secret
//! in wrong hands is not enough.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::container::port;
use crate::{
    fleet::Fleet,
    labels::{self, Component},
};

/// Label that every namespace carries with its own name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// In: gRPC from gateways, instances and the operator; pages from instances; scraping from anywhere, because
/// the figures hold nothing that a user wrote. Out: to instances only, by address, so not even DNS;
/// anywhere, if the model is fetched.
pub(super) fn instances(fleet: &Fleet) -> NetworkPolicy {
    let peers =
        [component(fleet, Component::Instance), component(fleet, Component::Gateway), operator(fleet)];
    NetworkPolicy {
        metadata: fleet.object_meta(fleet.names().instances()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(fleet, Component::Instance)),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![
                ingress(&["grpc"], peers.to_vec()),
                ingress(&["data"], vec![component(fleet, Component::Instance)]),
                ingress(&["metrics"], Vec::new()),
            ]),
            egress: Some(egress(fleet)),
        }),
    }
}

/// In: the API from anywhere. Out is left open: it watches the API server, whose address no selector names.
pub(super) fn gateway(fleet: &Fleet) -> NetworkPolicy {
    NetworkPolicy {
        metadata: fleet.object_meta(fleet.names().gateway()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(fleet, Component::Gateway)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![ingress(&["http"], Vec::new())]),
            ..NetworkPolicySpec::default()
        }),
    }
}

/// A store of models may be anywhere, and is found by name.
fn egress(fleet: &Fleet) -> Vec<NetworkPolicyEgressRule> {
    if fleet.cluster.spec.model.source.download.is_some() {
        return vec![NetworkPolicyEgressRule::default()];
    }
    vec![NetworkPolicyEgressRule {
        to: Some(vec![component(fleet, Component::Instance)]),
        ports: Some(ports(&["grpc", "data"])),
    }]
}

/// No peers means anybody.
fn ingress(names: &[&str], from: Vec<NetworkPolicyPeer>) -> NetworkPolicyIngressRule {
    let from = (!from.is_empty()).then_some(from);
    NetworkPolicyIngressRule { from, ports: Some(ports(names)) }
}

fn ports(names: &[&str]) -> Vec<NetworkPolicyPort> {
    let one = |name: &&str| NetworkPolicyPort {
        port: Some(port(name)),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    };
    names.iter().map(one).collect()
}

fn component(fleet: &Fleet, component: Component) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(selector(fleet, component)), ..NetworkPolicyPeer::default() }
}

fn operator(fleet: &Fleet) -> NetworkPolicyPeer {
    let matching = |key, value: &str| LabelSelector {
        match_labels: Some(labels::map([(key, value)])),
        ..LabelSelector::default()
    };
    NetworkPolicyPeer {
        namespace_selector: Some(matching(NAMESPACE_NAME, &fleet.surroundings.operator_namespace)),
        pod_selector: Some(matching(labels::NAME, labels::OPERATOR)),
        ..NetworkPolicyPeer::default()
    }
}

fn selector(fleet: &Fleet, component: Component) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels::selector(fleet.name(), component)),
        ..LabelSelector::default()
    }
}
