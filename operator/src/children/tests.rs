//! Rendered objects, whole: review a change of these files as a change of what clusters are given.

use insta::assert_yaml_snapshot;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use shoal_crds::ServingCluster;
use shoal_plan::{CrashHistory, GatewayTemplate, Role, Template};

use super::{Children, Instance, Prepared, instance_pod, secret};
use crate::{
    fleet::{Fleet, Images, Surroundings},
    validate::validate,
};

pub(crate) const UID: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const SECRET_UID: &str = "aaaaaaaa-0000-0000-0000-000000000001";

pub(crate) fn surroundings() -> Surroundings {
    Surroundings {
        images: Images {
            engine: "shoal:1".to_owned(),
            gateway: "shoal:1".to_owned(),
            fetch: Some("shoal-fetch:1".to_owned()),
            pull_policy: "IfNotPresent".to_owned(),
        },
        operator_namespace: "shoal-system".to_owned(),
        certificate_lifetime: jiff::SignedDuration::from_hours(30 * 24),
    }
}

pub(crate) fn cluster() -> ServingCluster {
    let object = json!({
        "apiVersion": "shoal.dev/v1alpha1",
        "kind": "ServingCluster",
        "metadata": { "name": "chat", "namespace": "team", "uid": UID, "generation": 1 },
        "spec": { "model": { "name": "smollm2", "source": { "path": "/models/smollm2.gguf" } } },
    });
    serde_json::from_value(object).unwrap()
}

pub(crate) fn fleet() -> Fleet {
    validate(&cluster(), &surroundings()).unwrap()
}

pub(crate) fn template(fleet: &Fleet) -> Template {
    let shoal_plan::Cluster { spec, image, tls, .. } = &fleet.cluster;
    Template { tls: *tls, ..Template::of(spec, image) }
}

pub(crate) fn children(fleet: &Fleet) -> Children<Prepared> {
    Children::render(fleet, &GatewayTemplate::of(&fleet.cluster.spec), SECRET_UID)
}

pub(crate) fn pod(fleet: &Fleet, name: &str, attempt: u32, role: Role) -> k8s_openapi::api::core::v1::Pod {
    let instance = Instance { name, attempt, role, crashes: CrashHistory::default() };
    instance_pod(fleet, &instance, &template(fleet))
}

#[test]
fn an_instance() {
    assert_yaml_snapshot!(pod(&fleet(), "chat-0", 1, Role::Decode));
}

#[test]
fn everything_beside_the_instances() {
    let Children {
        prefill_role: _,
        decode_role,
        account,
        role,
        binding,
        instances_policy,
        gateway_policy,
        instances_service,
        gateway_service,
        budget,
        gateway,
        stage: _,
    } = children(&fleet());
    assert_yaml_snapshot!("serving_role", decode_role);
    assert_yaml_snapshot!("service_account", account);
    assert_yaml_snapshot!("role", role);
    assert_yaml_snapshot!("role_binding", binding);
    assert_yaml_snapshot!("instances_network_policy", instances_policy);
    assert_yaml_snapshot!("gateway_network_policy", gateway_policy);
    assert_yaml_snapshot!("instances_service", instances_service);
    assert_yaml_snapshot!("gateway_service", gateway_service);
    assert_yaml_snapshot!("pod_disruption_budget", budget);
    assert_yaml_snapshot!("gateway_deployment", gateway);
    assert_yaml_snapshot!("fleet_secret", secret::known(&fleet()));
}

#[test]
fn a_role_is_in_the_label_of_a_pod_and_nowhere_else() {
    let fleet = fleet();
    let (mut prefill, mut decode) =
        (pod(&fleet, "chat-0", 1, Role::Prefill), pod(&fleet, "chat-0", 1, Role::Decode));
    assert_eq!(prefill.labels_mut().remove("shoal.dev/role").as_deref(), Some("prefill"));
    assert_eq!(decode.labels_mut().remove("shoal.dev/role").as_deref(), Some("decode"));
    assert_eq!(prefill, decode);
    let selectors = serde_json::to_string(&[
        json!(children(&fleet).instances_service.spec.unwrap().selector),
        json!(children(&fleet).instances_policy.spec.unwrap()),
        json!(children(&fleet).budget.spec.unwrap().selector),
        json!(children(&fleet).gateway.spec.unwrap().selector),
    ]);
    assert!(!selectors.unwrap().contains("role"));
}

#[test]
fn optional_settings_become_flags_only_when_they_are_set() {
    let mut fleet = fleet();
    let args = |fleet: &Fleet| {
        pod(fleet, "chat-0", 1, Role::Decode).spec.unwrap().containers[0].args.clone().unwrap()
    };
    assert!(!args(&fleet).iter().any(|arg| arg == "--threads" || arg == "--max-context"));
    fleet.cluster.spec.engine.threads = Some(3);
    fleet.cluster.spec.engine.max_context = Some(4096);
    let tail: Vec<String> = args(&fleet).into_iter().rev().take(4).rev().collect();
    assert_eq!(tail, ["--threads", "3", "--max-context", "4096"]);
}

#[test]
fn a_claim_is_mounted_read_only_in_engines_and_gateways_and_the_path_is_within_it() {
    let mut fleet = fleet();
    fleet.cluster.spec.model.source.claim = Some("models".to_owned());
    let instance = pod(&fleet, "chat-0", 1, Role::Decode).spec.unwrap();
    let gateway = children(&fleet).gateway.spec.unwrap().template.spec.unwrap();
    for spec in [instance, gateway] {
        let claim = spec.volumes.unwrap()[1].persistent_volume_claim.clone().unwrap();
        assert_eq!((claim.claim_name.as_str(), claim.read_only), ("models", Some(true)));
        let container = &spec.containers[0];
        let mount = container.volume_mounts.clone().unwrap()[1].clone();
        assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/var/lib/shoal/model", Some(true)));
        assert!(
            container.args.clone().unwrap().contains(&"/var/lib/shoal/model/models/smollm2.gguf".to_owned())
        );
    }
}

fn downloads(fleet: &mut Fleet, urls: &[&str], claim: Option<&str>) {
    let sum = |index: usize| format!("{index:064x}");
    let file = |(index, url): (usize, &&str)| shoal_crds::DownloadFile {
        url: (*url).to_owned(),
        sha256: sum(index),
    };
    let source = &mut fleet.cluster.spec.model.source;
    source.claim = claim.map(ToOwned::to_owned);
    source.download = Some(shoal_crds::Download {
        files: urls.iter().enumerate().map(file).collect(),
        credentials: Some("store".to_owned()),
    });
}

#[test]
fn a_model_is_fetched_before_its_engine_starts_which_cannot_write_it() {
    let mut fleet = fleet();
    downloads(&mut fleet, &["s3://bucket/some.gguf"], None);
    assert_yaml_snapshot!("an_instance_that_fetches", pod(&fleet, "chat-0", 1, Role::Decode).spec);
    let engines = serde_json::to_value(children(&fleet).instances_policy.spec).unwrap();
    assert_eq!(engines["egress"], json!([{}]), "a store may be anywhere");
}

#[test]
fn what_is_fetched_into_a_claim_is_written_there_by_the_fetching_step_alone() {
    let mut fleet = fleet();
    downloads(
        &mut fleet,
        &["https://host/a/config.json?x=1", "https://host/b/model.safetensors"],
        Some("models"),
    );
    fleet.cluster.spec.model.source.path = "/llama".to_owned();
    let gateway = children(&fleet).gateway.spec.unwrap().template.spec.unwrap();
    for spec in [pod(&fleet, "chat-0", 1, Role::Decode).spec.unwrap(), gateway] {
        let claim = spec.volumes.unwrap()[1].persistent_volume_claim.clone().unwrap();
        assert_eq!((claim.claim_name.as_str(), claim.read_only), ("models", None));
        let fetch = &spec.init_containers.unwrap()[0];
        assert_eq!(fetch.volume_mounts.clone().unwrap()[0].read_only, None);
        assert_eq!(spec.containers[0].volume_mounts.clone().unwrap()[1].read_only, Some(true));
        let args = fetch.args.clone().unwrap();
        assert_eq!(args[..2], ["--folder", "/var/lib/shoal/model/llama"]);
        let names: Vec<&str> =
            args.iter().skip_while(|arg| *arg != "--file").step_by(4).map(String::as_str).collect();
        assert_eq!(names, ["--file", "--file"]);
        assert!(args.contains(&"config.json".to_owned()) && args.contains(&"model.safetensors".to_owned()));
    }
}

#[test]
fn a_folder_of_the_node_is_mounted_read_only_and_must_be_there() {
    let mut fleet = fleet();
    fleet.cluster.spec.model.source.host_path = Some("/srv/models".to_owned());
    let instance = pod(&fleet, "chat-0", 1, Role::Decode).spec.unwrap();
    let gateway = children(&fleet).gateway.spec.unwrap().template.spec.unwrap();
    for spec in [instance, gateway] {
        let folder = spec.volumes.unwrap()[1].host_path.clone().unwrap();
        assert_eq!((folder.path.as_str(), folder.type_.as_deref()), ("/srv/models", Some("Directory")));
        let mount = spec.containers[0].volume_mounts.clone().unwrap()[1].clone();
        assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/var/lib/shoal/model", Some(true)));
        let args = spec.containers[0].args.clone().unwrap();
        assert!(args.contains(&"/var/lib/shoal/model/models/smollm2.gguf".to_owned()), "{args:?}");
    }
}

#[test]
fn images_pull_policies_and_the_number_of_gateways_are_the_resources_own_where_it_says() {
    let mut fleet = fleet();
    let engine = &mut fleet.cluster.spec.engine;
    engine.image = Some("mine:2".to_owned());
    engine.image_pull_policy = Some(shoal_crds::ImagePullPolicy::Always);
    fleet.cluster.spec.gateway.image = Some("ours:3".to_owned());
    fleet.cluster.spec.gateway.replicas = 5;
    let instance = pod(&fleet, "chat-0", 1, Role::Decode).spec.unwrap().containers.remove(0);
    assert_eq!(
        (instance.image.as_deref(), instance.image_pull_policy.as_deref()),
        (Some("mine:2"), Some("Always"))
    );
    let gateway = children(&fleet).gateway.spec.unwrap();
    let container = &gateway.template.spec.unwrap().containers[0];
    assert_eq!((gateway.replicas, container.image.as_deref()), (Some(5), Some("ours:3")));
    assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"));
}

#[test]
fn nothing_that_a_user_wrote_is_expanded_by_the_kubelet() {
    let mut fleet = fleet();
    "/models/$(POD_IP)/$HOME.gguf".clone_into(&mut fleet.cluster.spec.model.source.path);
    let pod = pod(&fleet, "chat-0", 1, Role::Decode);
    let args = pod.spec.unwrap().containers[0].args.clone().unwrap();
    assert_eq!(args[1], "/models/$$(POD_IP)/$$HOME.gguf");
    assert!(args.contains(&"$(POD_IP):7070".to_owned()));
}

/// The restricted Pod Security Standard, as its admission plugin checks it.
fn violations(spec: &Value) -> Vec<String> {
    let pod = &spec["securityContext"];
    let mut found = Vec::new();
    let mut check = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    check(pod["runAsNonRoot"] == true && pod["runAsUser"] != 0, "root");
    check(pod["seccompProfile"]["type"] == "RuntimeDefault", "seccomp");
    for name in ["hostNetwork", "hostPID", "hostIPC"] {
        check(spec[name].is_null(), name);
    }
    let allowed = ["secret", "emptyDir", "configMap", "projected", "persistentVolumeClaim"];
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        check(kinds.into_iter().all(|kind| allowed.contains(&kind.as_str())), "volume");
    }
    for container in spec["containers"].as_array().unwrap() {
        let security = &container["securityContext"];
        check(security["allowPrivilegeEscalation"] == false, "escalation");
        check(security["capabilities"] == json!({ "drop": ["ALL"] }), "capabilities");
        check(security["readOnlyRootFilesystem"] == true, "writable root");
        check(
            container["ports"].as_array().unwrap().iter().all(|port| port["hostPort"].is_null()),
            "host port",
        );
    }
    found
}

#[test]
fn every_pod_meets_the_restricted_standard_and_only_the_gateway_gets_a_token() {
    let fleet = fleet();
    let instance = serde_json::to_value(pod(&fleet, "chat-0", 1, Role::Decode).spec).unwrap();
    let gateway = serde_json::to_value(children(&fleet).gateway.spec.unwrap().template.spec).unwrap();
    assert_eq!(violations(&instance), [""; 0]);
    assert_eq!(violations(&gateway), [""; 0]);
    assert_eq!(instance["automountServiceAccountToken"], false);
    assert_eq!(gateway["automountServiceAccountToken"], true);
}

#[test]
fn every_object_is_owned_by_its_cluster_labelled_and_stamped() {
    let fleet = fleet();
    let Children { account, gateway, budget, .. } = children(&fleet);
    for meta in [
        &account.metadata,
        &gateway.metadata,
        &budget.metadata,
        &pod(&fleet, "chat-0", 1, Role::Decode).metadata,
    ] {
        assert!(fleet.controls(meta));
        assert_eq!(meta.namespace.as_deref(), Some("team"));
        assert_eq!(meta.labels.as_ref().unwrap()["app.kubernetes.io/managed-by"], "shoal-operator");
    }
    let stamp = |fleet: &Fleet| children(fleet).gateway.annotations()["shoal.dev/rendered-hash"].clone();
    assert_eq!(stamp(&fleet), stamp(&fleet));
    let mut other = fleet.clone();
    "smollm3".clone_into(&mut other.cluster.spec.model.name);
    assert_ne!(stamp(&fleet), stamp(&other));
}

#[test]
fn two_fleet_secrets_differ_and_each_is_one_that_programs_accept() {
    let value =
        |secret: k8s_openapi::api::core::v1::Secret| secret.data.unwrap()[super::SECRET_KEY].0.clone();
    let (one, other) =
        (value(super::fleet_secret(&fleet()).unwrap()), value(super::fleet_secret(&fleet()).unwrap()));
    assert_ne!(one, other);
    assert!(shoal_wire::FleetSecret::parse(&one).is_some());
}
