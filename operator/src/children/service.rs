//! Services: the gateway's, which clients call, and a headless one that gives instances names in DNS.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use shoal_plan::GatewayTemplate;

use super::container::{GRPC_PORT, METRICS_PORT, port};
use crate::{
    fleet::Fleet,
    labels::{self, Component},
};

pub(super) fn gateway(fleet: &Fleet, template: &GatewayTemplate) -> Service {
    Service {
        metadata: fleet.object_meta(fleet.names().gateway()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(labels::selector(fleet.name(), Component::Gateway)),
            ports: Some(vec![service_port("http", i32::from(template.port))]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// For people and for scraping; the gateway itself finds pods through the API server.
pub(super) fn instances(fleet: &Fleet) -> Service {
    Service {
        metadata: fleet.object_meta(fleet.names().instances()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            selector: Some(labels::selector(fleet.name(), Component::Instance)),
            ports: Some(vec![service_port("grpc", GRPC_PORT), service_port("metrics", METRICS_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Names the container's port of the same name as its target.
fn service_port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(port(name)),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
