//! Secrets of the fleet's certificates. Both change while they are mounted, so nothing of them is in a pod's template.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use shoal_wire::tls::Material;

use crate::{
    certificates::KeyedCertificate,
    fleet::Fleet,
    names::ObjectName,
    observe::{BUNDLE, CERTIFICATE, KEY},
};

/// The authority; mounted by nobody.
pub fn authority_secret(fleet: &Fleet, authority: &KeyedCertificate) -> Secret {
    let KeyedCertificate { certificate, key } = authority;
    secret(fleet, fleet.names().authority(), [(CERTIFICATE, certificate.as_bytes()), (KEY, key.as_bytes())])
}

/// What instances and gateways mount.
pub fn certificate_secret(fleet: &Fleet, material: &Material) -> Secret {
    let Material { authorities, certificate, key } = material;
    secret(
        fleet,
        fleet.names().certificate(),
        [(BUNDLE, authorities), (CERTIFICATE, certificate), (KEY, key)],
    )
}

fn secret<const N: usize>(fleet: &Fleet, name: ObjectName, content: [(&str, &[u8]); N]) -> Secret {
    Secret {
        metadata: fleet.object_meta(name),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(content.map(|(key, bytes)| (key.to_owned(), ByteString(bytes.to_vec()))).into()),
        ..Secret::default()
    }
}
