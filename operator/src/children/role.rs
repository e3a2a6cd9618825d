//! The ServingRoles: what `/scale` of each role is a part of.

use shoal_crds::{FOLLOWED_REPLICAS, RoleName, ServingRole, ServingRoleSpec};
use shoal_plan::Role;

use crate::{fleet::Fleet, labels};

pub(super) fn serving_role(fleet: &Fleet, role: Role) -> ServingRole {
    let mut metadata = fleet.object_meta(fleet.names().role(role));
    metadata.labels.get_or_insert_default().insert(labels::ROLE.to_owned(), role.as_str().to_owned());
    let followed = fleet.manifest.get(role).to_string();
    metadata.annotations = Some(labels::map([(FOLLOWED_REPLICAS, &followed)]));
    let name = match role {
        Role::Prefill => RoleName::Prefill,
        Role::Decode => RoleName::Decode,
    };
    let spec = ServingRoleSpec { role: name, replicas: fleet.asked.get(role) };
    ServingRole { metadata, spec, status: None }
}
