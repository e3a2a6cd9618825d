//! The gateway: a Deployment, because gateways are alike and hold nothing that another one needs.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Container, ContainerPort, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, PodTemplateSpec,
            Probe, ResourceRequirements, SleepAction, TopologySpreadConstraint,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use shoal_plan::{GatewayTemplate, model_digest};

use super::container::{
    HTTP_PORT, LAST_WORDS, container_security, flags, fleet_mount, fleet_volume, model_mount, model_path,
    model_volume, pod_security, port, quantity, secret_file, tls_flags, tls_mount, tls_volume,
};
use super::{download, overlay::Overlay};
use crate::{
    fleet::Fleet,
    labels::{self, Component},
};

/// Seconds in which Services learn that the pod leaves; it still accepts connections.
const LEAVE: i64 = 5;
/// Seconds that running streams get, as the gateway's own default has it, and some to end.
const STREAMS: i64 = 30;
const MARGIN: i64 = 10;

pub(super) fn deployment(fleet: &Fleet, template: &GatewayTemplate, secret_uid: &str) -> Deployment {
    let mut metadata = fleet.object_meta(fleet.names().gateway());
    let made_for = serde_json::to_string(template).unwrap_or_default();
    metadata.annotations = Some(labels::map([(labels::GATEWAY_TEMPLATE, &made_for)]));
    let one_more = RollingUpdateDeployment {
        max_surge: Some(IntOrString::Int(1)),
        max_unavailable: Some(IntOrString::Int(0)),
    };
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(fleet.cluster.spec.gateway.replicas),
            selector: selector(fleet),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(one_more),
            }),
            template: pod(fleet, template, secret_uid),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn selector(fleet: &Fleet) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels::selector(fleet.name(), Component::Gateway)),
        ..LabelSelector::default()
    }
}

fn pod(fleet: &Fleet, template: &GatewayTemplate, secret_uid: &str) -> PodTemplateSpec {
    let model = model_digest(&template.model);
    let mut metadata = ObjectMeta {
        labels: Some(labels::pod(fleet.name(), Component::Gateway, &model)),
        annotations: Some(labels::map([(labels::FLEET_SECRET, secret_uid), (labels::TLS, labels::MUTUAL)])),
        ..ObjectMeta::default()
    };
    let mut spec = PodSpec {
        init_containers: download::steps(fleet, &template.model.source),
        containers: vec![container(fleet, template, &model)],
        volumes: Some(
            [Some(fleet_volume(fleet)), model_volume(&template.model.source), Some(tls_volume(fleet))]
                .into_iter()
                .flatten()
                .collect(),
        ),
        security_context: Some(pod_security()),
        service_account_name: Some(fleet.names().gateway().into()),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(LEAVE + STREAMS + MARGIN),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(selector(fleet)),
            ..TopologySpreadConstraint::default()
        }]),
        ..PodSpec::default()
    };
    let overlay = Overlay::known(fleet.cluster.spec.gateway.pod_template.as_ref(), Component::Gateway);
    overlay.over(&mut metadata, &mut spec, &selector(fleet));
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

fn container(fleet: &Fleet, template: &GatewayTemplate, model: &str) -> Container {
    let gateway = &fleet.cluster.spec.gateway;
    let image = gateway.image.as_ref().unwrap_or(&fleet.surroundings.images.gateway);
    let mut args = flags([
        ("--listen", &format!("0.0.0.0:{HTTP_PORT}")),
        ("--model", &model_path(&template.model.source)),
        ("--model-name", &template.model.name),
        ("--pods", &labels::callable(fleet.name(), model)),
        ("--secret-file", &secret_file()),
        ("--shutdown-grace", &STREAMS.to_string()),
    ]);
    args.extend(tls_flags());
    Container {
        name: Component::Gateway.container().to_owned(),
        image: Some(image.clone()),
        image_pull_policy: Some(fleet.pull_policy(gateway.image_pull_policy)),
        command: Some(vec!["shoal-gateway".to_owned()]),
        args: Some(args),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: HTTP_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(probe("/health", 1, 120)),
        liveness_probe: Some(probe("/health", 10, 3)),
        readiness_probe: Some(probe("/ready", 2, 2)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: LEAVE }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        resources: Some(ResourceRequirements {
            requests: Some(
                [("cpu", "100m"), ("memory", "128Mi")].map(|(k, v)| (k.to_owned(), quantity(v))).into(),
            ),
            ..ResourceRequirements::default()
        }),
        security_context: Some(container_security()),
        termination_message_policy: Some(LAST_WORDS.to_owned()),
        volume_mounts: Some(
            [Some(fleet_mount()), model_mount(&template.model.source), Some(tls_mount())]
                .into_iter()
                .flatten()
                .collect(),
        ),
        ..Container::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: port("http"),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}
