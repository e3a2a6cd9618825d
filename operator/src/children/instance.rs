//! One engine instance: a pod of the operator's own, because flips, targeted replacement and draining need
//! identity. Nothing in its spec knows a role; the label says which one the operator is to set.

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, Pod, PodSpec, Probe, ResourceRequirements, TCPSocketAction,
        TopologySpreadConstraint,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use shoal_plan::{CrashHistory, DRAIN_TIMEOUT, Role, START_TIMEOUT, Template, model_digest};

use super::container::{
    DATA_PORT, GRPC_PORT, LAST_WORDS, METRICS_PORT, POD_IP, container_security, flags, fleet_mount,
    fleet_volume, model_mount, model_path, model_volume, pod_ip, pod_security, port, quantity, secret_file,
    tls_flags, tls_mount, tls_volume,
};
use super::{download, overlay::Overlay};
use crate::{
    fleet::Fleet,
    labels::{self, Component},
    names::Names,
};

/// Seconds between probes while weights load.
const START_PERIOD: i32 = 1;
/// Seconds beyond draining in which a process ends.
const MARGIN: i64 = 15;

/// Which pod of which instance, and what it inherits.
#[derive(Debug, Clone, Copy)]
pub struct Instance<'a> {
    /// The planner's name.
    pub name: &'a str,
    pub attempt: u32,
    pub role: Role,
    /// Of the pods that it replaces.
    pub crashes: CrashHistory,
}

pub fn pod(fleet: &Fleet, instance: &Instance<'_>, template: &Template) -> Pod {
    let Instance { name, attempt, role, crashes } = instance;
    let pod_name = Names::pod(name, *attempt);
    let container = container(fleet, pod_name.as_str(), template);
    let mut metadata = fleet.object_meta(pod_name);
    metadata.labels = Some(labels::instance(fleet.name(), name, *role, &model_digest(&template.model)));
    metadata.annotations = Some(labels::map([
        (labels::TEMPLATE, &template.hash()),
        (labels::CRASHES, &crashes.count.to_string()),
    ]));
    if template.tls {
        metadata
            .annotations
            .get_or_insert_default()
            .insert(labels::TLS.to_owned(), labels::MUTUAL.to_owned());
    }
    let mut spec = PodSpec {
        init_containers: download::steps(fleet, &template.model.source),
        containers: vec![container],
        volumes: Some(
            [
                Some(fleet_volume(fleet)),
                model_volume(&template.model.source),
                template.tls.then(|| tls_volume(fleet)),
            ]
            .into_iter()
            .flatten()
            .collect(),
        ),
        security_context: Some(pod_security()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // The node restarts a crashed engine by itself, without API server or operator.
        restart_policy: Some("Always".to_owned()),
        termination_grace_period_seconds: Some(DRAIN_TIMEOUT.as_secs() + MARGIN),
        topology_spread_constraints: Some(vec![spread(fleet)]),
        ..PodSpec::default()
    };
    let overlay = Overlay::known(template.engine.pod_template.as_ref(), Component::Instance);
    overlay.over(&mut metadata, &mut spec, &selector(fleet));
    Pod { metadata, spec: Some(spec), ..Pod::default() }
}

fn selector(fleet: &Fleet) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels::selector(fleet.name(), Component::Instance)),
        ..LabelSelector::default()
    }
}

/// Over nodes, as far as it goes, whatever the roles are.
fn spread(fleet: &Fleet) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector(fleet)),
        ..TopologySpreadConstraint::default()
    }
}

fn container(fleet: &Fleet, pod_name: &str, template: &Template) -> Container {
    // Destructured without a rest pattern: a field that is not handed on must not compile.
    let Template { model, engine, image, tls } = template;
    let shoal_crds::EngineSpec {
        device: shoal_crds::Device::Cpu,
        threads,
        kv_memory,
        max_batch,
        chunk,
        max_context,
        image: _,
        image_pull_policy: _,
        // Merged over the whole pod.
        pod_template: _,
    } = engine;
    // The engine's own suffixes end at Gi; `validate` has seen that this is a quantity.
    let memory = engine.kv_memory_bytes().map_or_else(|_| kv_memory.clone(), |bytes| bytes.to_string());
    let mut args = flags([
        ("--model", &model_path(&model.source)),
        ("--model-name", &model.name),
        ("--instance", pod_name),
        ("--listen", &format!("{POD_IP}{GRPC_PORT}")),
        ("--data-listen", &format!("{POD_IP}{DATA_PORT}")),
        ("--metrics-listen", &format!("{POD_IP}{METRICS_PORT}")),
        ("--secret-file", &secret_file()),
        ("--kv-memory", &memory),
        ("--max-batch", &max_batch.to_string()),
        ("--chunk", &chunk.to_string()),
        ("--drain-timeout", &DRAIN_TIMEOUT.as_secs().to_string()),
    ]);
    if *tls {
        args.extend(tls_flags());
    }
    args.extend(threads.iter().flat_map(|threads| flags([("--threads", &threads.to_string())])));
    args.extend(max_context.iter().flat_map(|tokens| flags([("--max-context", &tokens.to_string())])));
    Container {
        name: Component::Instance.container().to_owned(),
        image: Some(image.clone()),
        image_pull_policy: Some(fleet.pull_policy(engine.image_pull_policy)),
        command: Some(vec!["shoal-engine".to_owned()]),
        args: Some(args),
        env: Some(vec![pod_ip()]),
        ports: Some(
            [("grpc", GRPC_PORT), ("data", DATA_PORT), ("metrics", METRICS_PORT)].map(container_port).into(),
        ),
        // The engine listens once its weights are loaded. There is no liveness probe: an engine whose loop
        // stands still is found by the operator, which asks it, and one whose loop ended exits by itself.
        startup_probe: Some(probe(START_PERIOD, START_TIMEOUT.as_secs() as i32 / START_PERIOD)),
        readiness_probe: Some(probe(5, 3)),
        resources: Some(ResourceRequirements {
            requests: Some(requests(*threads, kv_memory)),
            ..ResourceRequirements::default()
        }),
        security_context: Some(container_security()),
        termination_message_policy: Some(LAST_WORDS.to_owned()),
        volume_mounts: Some(
            [Some(fleet_mount()), model_mount(&model.source), tls.then(tls_mount)]
                .into_iter()
                .flatten()
                .collect(),
        ),
        ..Container::default()
    }
}

/// What is known to be needed: a core per thread that the spec names, and the page pool, which is touched as
/// a whole. The weights are file pages that the node can drop.
fn requests(
    threads: Option<i32>,
    kv_memory: &str,
) -> std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity> {
    let cpu = threads.map_or_else(|| "250m".to_owned(), |threads| threads.to_string());
    [("cpu".to_owned(), quantity(cpu)), ("memory".to_owned(), quantity(kv_memory))].into()
}

fn container_port((name, number): (&str, i32)) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(period_seconds: i32, failures: i32) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction { port: port("grpc"), ..TCPSocketAction::default() }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}
