//! What the gateway may ask the API server: to list and watch the pods of its own namespace, nothing else.

use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
};

use crate::fleet::Fleet;

pub(super) fn account(fleet: &Fleet) -> ServiceAccount {
    ServiceAccount {
        metadata: fleet.object_meta(fleet.names().gateway()),
        // The gateway's pods ask for the token themselves; nobody else gets it by default.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

pub(super) fn role(fleet: &Fleet) -> Role {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    Role {
        metadata: fleet.object_meta(fleet.names().gateway()),
        rules: Some(vec![PolicyRule {
            api_groups: Some(owned(&[""])),
            resources: Some(owned(&["pods"])),
            verbs: owned(&["list", "watch"]),
            ..PolicyRule::default()
        }]),
    }
}

pub(super) fn binding(fleet: &Fleet) -> RoleBinding {
    let name = String::from(fleet.names().gateway());
    RoleBinding {
        metadata: fleet.object_meta(fleet.names().gateway()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: name.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name,
            namespace: Some(fleet.namespace.clone()),
            ..Subject::default()
        }]),
    }
}
