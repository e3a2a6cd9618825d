//! Users' parts of pods, as tables: what is merged, and what is refused in which words.

use serde_json::{Value, json};
use shoal_crds::PodTemplate;
use shoal_plan::Role;

use super::Overlay;
use crate::{
    children::tests::{children, fleet, pod},
    fleet::Fleet,
    labels::Component,
};

fn template(text: Value) -> PodTemplate {
    serde_json::from_value(text).unwrap()
}

/// Everything that can be set, as on a node with GPUs and RDMA.
fn everything(own: &str) -> PodTemplate {
    template(json!({
        "metadata": {
            "labels": { "team": "search", "shoal.dev.example": "1" },
            "annotations": { "sidecar.istio.io/inject": "false" },
        },
        "spec": {
            "nodeSelector": { "gpu": "h200" },
            "tolerations": [{ "key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule" }],
            "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "rail", "operator": "Exists" }] }],
            } } },
            "topologySpreadConstraints": [
                { "topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule" },
                { "topologyKey": "kubernetes.io/hostname", "maxSkew": 2, "whenUnsatisfiable": "ScheduleAnyway" },
            ],
            "priorityClassName": "serving",
            "runtimeClassName": "nvidia",
            "schedulerName": "volcano",
            "imagePullSecrets": [{ "name": "registry" }],
            "resourceClaims": [{ "name": "gpu", "resourceClaimTemplateName": "one-gpu" }],
            "volumes": [{ "name": "scratch", "emptyDir": { "sizeLimit": "1Gi" } }],
            "initContainers": [{ "name": "warm", "image": "tools:1", "command": ["warm"] }],
            "containers": [
                {
                    "name": own,
                    "resources": { "limits": { "nvidia.com/gpu": 1, "rdma/hca": "1" }, "requests": { "memory": "64Gi" } },
                    "env": [{ "name": "SHOAL_LOG", "value": "debug" }],
                    "envFrom": [{ "configMapRef": { "name": "nccl" } }],
                    "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }],
                },
                { "name": "exporter", "image": "exporter:1", "ports": [{ "containerPort": 9400 }] },
            ],
        },
    }))
}

fn with_engine(template: PodTemplate) -> Fleet {
    let mut fleet = fleet();
    fleet.cluster.spec.engine.pod_template = Some(template);
    fleet
}

#[test]
fn an_instance_gets_everything_that_can_be_set_beside_what_the_operator_holds() {
    let (plain, pod) = (
        pod(&fleet(), "chat-0", 1, Role::Decode),
        pod(&with_engine(everything("engine")), "chat-0", 1, Role::Decode),
    );
    let (plain, pod) = (serde_json::to_value(plain).unwrap(), serde_json::to_value(pod).unwrap());
    assert_eq!(pod["metadata"]["labels"]["team"], "search");
    assert_eq!(pod["metadata"]["labels"]["shoal.dev/role"], "decode");
    assert_eq!(pod["metadata"]["annotations"]["sidecar.istio.io/inject"], "false");
    let (spec, asked) = (&pod["spec"], &everything("engine").0["spec"]);
    for field in [
        "nodeSelector",
        "tolerations",
        "affinity",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "imagePullSecrets",
        "resourceClaims",
        "initContainers",
    ] {
        assert_eq!(spec[field], asked[field], "{field}");
    }
    let spreads = spec["topologySpreadConstraints"].as_array().unwrap();
    assert_eq!((spreads.len(), &spreads[0]["maxSkew"]), (2, &json!(2)), "merged by topologyKey");
    assert_eq!(spreads[1]["labelSelector"], plain["spec"]["topologySpreadConstraints"][0]["labelSelector"]);
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&spec["volumes"]), ["fleet", "tls", "scratch"]);
    assert_eq!(names(&spec["containers"]), ["engine", "exporter"]);
    let (own, before) = (&spec["containers"][0], &plain["spec"]["containers"][0]);
    for field in ["args", "command", "image", "ports", "securityContext", "startupProbe", "readinessProbe"] {
        assert_eq!(own[field], before[field], "{field}");
    }
    assert_eq!(own["resources"]["limits"], json!({ "nvidia.com/gpu": "1", "rdma/hca": "1" }));
    assert_eq!(own["resources"]["requests"]["memory"], "64Gi");
    assert_eq!(own["resources"]["requests"]["cpu"], before["resources"]["requests"]["cpu"]);
    assert_eq!(names(&own["env"]), ["POD_IP", "SHOAL_LOG"]);
    assert_eq!(names(&own["volumeMounts"]), ["fleet", "tls", "scratch"]);
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["securityContext"], plain["spec"]["securityContext"]);
}

#[test]
fn the_gateways_part_changes_gateways_and_no_instance_and_the_engines_part_no_gateway() {
    let (plain, engine) = (fleet(), with_engine(everything("engine")));
    let mut gateway = fleet();
    gateway.cluster.spec.gateway.pod_template = Some(everything("gateway"));
    let pod = |fleet: &Fleet| pod(fleet, "chat-0", 1, Role::Decode);
    let deployment = |fleet: &Fleet| children(fleet).gateway;
    assert_eq!(pod(&gateway), pod(&plain));
    assert_eq!(deployment(&engine), deployment(&plain));
    assert_ne!(pod(&engine), pod(&plain));
    let spec = deployment(&gateway).spec.unwrap();
    assert_eq!(spec.selector, deployment(&plain).spec.unwrap().selector);
    let (metadata, pod) = (spec.template.metadata.unwrap(), spec.template.spec.unwrap());
    assert_eq!(metadata.labels.unwrap()["team"], "search");
    assert_eq!(pod.containers[0].name, "gateway");
    assert_eq!(pod.containers[0].command, Some(vec!["shoal-gateway".to_owned()]));
    assert_eq!(pod.containers[0].resources.clone().unwrap().limits.unwrap()["nvidia.com/gpu"].0, "1");
    assert_eq!(pod.containers[1].name, "exporter");
}

#[test]
fn the_order_of_keys_makes_no_other_pods_and_a_value_does() {
    let hash = |text: Value| {
        let fleet = with_engine(template(text));
        crate::children::tests::template(&fleet).hash()
    };
    let one = hash(json!({ "spec": { "nodeSelector": { "a": "1", "b": "2" }, "priorityClassName": "p" } }));
    let other = hash(json!({ "spec": { "priorityClassName": "p", "nodeSelector": { "b": "2", "a": "1" } } }));
    assert_eq!(one, other);
    assert_ne!(
        one,
        hash(json!({ "spec": { "nodeSelector": { "a": "1", "b": "3" }, "priorityClassName": "p" } }))
    );
}

fn refusal(text: Value) -> String {
    Overlay::read(&template(text), Component::Instance).unwrap_err().to_string()
}

#[test]
fn what_the_operator_holds_is_refused_with_the_field_and_what_is_allowed() {
    let own =
        |field: &str, value: Value| json!({ "spec": { "containers": [{ "name": "engine", field: value }] } });
    let only = "spec.containers[0]: must add to the operator's own container only resources, env, envFrom, volumeMounts \
                and volumeDevices";
    for (text, expected) in [
        (
            json!({ "metadata": { "labels": { "shoal.dev/role": "decode" } } }),
            "metadata.labels.shoal.dev/role: is the operator's",
        ),
        (
            json!({ "metadata": { "annotations": { "shoal.dev/crashes": "9" } } }),
            "metadata.annotations.shoal.dev/crashes: is the operator's",
        ),
        (
            json!({ "spec": { "volumes": [{ "name": "fleet", "emptyDir": {} }] } }),
            "spec.volumes: must be other volumes than fleet, which is the operator's",
        ),
        (own("image", json!("mine:1")), only),
        (own("command", json!(["sh"])), only),
        (own("args", json!(["-c"])), only),
        (own("ports", json!([{ "containerPort": 1 }])), only),
        (own("securityContext", json!({ "privileged": true })), only),
        (own("livenessProbe", json!({ "exec": { "command": ["true"] } })), only),
        (own("lifecycle", json!({ "preStop": { "sleep": { "seconds": 1 } } })), only),
        (
            own("env", json!([{ "name": "POD_IP", "value": "1.2.3.4" }])),
            "spec.containers[0].env: must not set POD_IP, which is the operator's",
        ),
        (
            own("volumeMounts", json!([{ "name": "x", "mountPath": "/etc/" }])),
            "spec.containers[0].volumeMounts: must not mount \"/etc\" over or within /etc/shoal/fleet, which is the operator's",
        ),
        (
            own("volumeMounts", json!([{ "name": "x", "mountPath": "/var/lib/shoal/model/more" }])),
            "spec.containers[0].volumeMounts: must not mount \"/var/lib/shoal/model/more\" over or within \
             /var/lib/shoal/model, which is the operator's",
        ),
        (
            json!({ "spec": { "containers": [{ "name": "engin", "env": [] }] } }),
            "spec.containers[0]: \"engin\" is no container of the operator's, so it must have an image",
        ),
        (
            json!({ "spec": { "containers": [{ "name": "x", "image": "x", "ports": [{ "containerPort": 1, "name": "metrics" }] }] } }),
            "spec.containers[0].ports: must not have port 1, which is the operator's",
        ),
        (
            json!({ "spec": { "initContainers": [{ "name": "x", "image": "x", "ports": [{ "containerPort": 7070 }] }] } }),
            "spec.initContainers[0].ports: must not have port 7070, which is the operator's",
        ),
    ] {
        assert_eq!(refusal(text), expected);
    }
}

#[test]
fn what_kubernetes_does_not_know_is_refused_with_its_place() {
    for (text, expected) in [
        (json!({ "sepc": {} }), "sepc: must be metadata or spec, a mapping of fields"),
        (
            json!({ "spec": { "nodeselector": {} } }),
            "spec.nodeselector: is not a field of Kubernetes' own type",
        ),
        (
            json!({ "spec": { "affinity": { "nodeAffinty": {} } } }),
            "spec.affinity.nodeAffinty: is not a field of Kubernetes' own type",
        ),
        (
            json!({ "spec": { "containers": [{ "name": "x", "image": "x", "livenesProbe": {} }] } }),
            "spec.containers[0].livenesProbe: is not a field of Kubernetes' own type",
        ),
    ] {
        assert_eq!(refusal(text), expected);
    }
    let wrong = refusal(json!({ "spec": { "volumes": [{ "name": "x", "emptyDir": "yes" }] } }));
    assert!(wrong.starts_with("spec.volumes: invalid type: string \"yes\""), "{wrong}");
}

/// Known to Kubernetes and not offered: it is never merged, whatever let it in.
#[test]
fn what_is_not_offered_never_reaches_a_pod() {
    let plain = pod(&fleet(), "chat-0", 1, Role::Decode).spec;
    for field in [
        json!({ "hostNetwork": true }),
        json!({ "serviceAccountName": "admin" }),
        json!({ "restartPolicy": "Never" }),
        json!({ "securityContext": { "runAsUser": 0 } }),
        json!({ "terminationGracePeriodSeconds": 0 }),
        json!({ "automountServiceAccountToken": true }),
    ] {
        let fleet = with_engine(template(json!({ "spec": field })));
        assert_eq!(pod(&fleet, "chat-0", 1, Role::Decode).spec, plain, "{field}");
    }
}
