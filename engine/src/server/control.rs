//! Calls of the operator: role and drain.

use shoal_wire::rpc::{self, DrainReply, DrainRequest, SetRoleReply, SetRoleRequest};
use tonic::Status;

use super::validate::invalid;
use crate::instance::Instance;
use crate::scheduler::{Role, RoleChange};

pub(super) async fn set_role(instance: &Instance, request: SetRoleRequest) -> Result<SetRoleReply, Status> {
    let SetRoleRequest { role, epoch } = request;
    let role = rpc::Role::try_from(role)
        .ok()
        .and_then(|role| Role::try_from(role).ok())
        .ok_or_else(|| invalid("role", &role, "ROLE_PREFILL, ROLE_DECODE or ROLE_MIXED"))?;
    let RoleChange { role, epoch, prefill_residue, decode_residue } =
        instance.handle.set_role(role, epoch).await?;
    tracing::info!(role = role.name(), epoch, prefill_residue, decode_residue, "role set");
    Ok(SetRoleReply {
        role: rpc::Role::from(role).into(),
        epoch,
        prefill_residue: prefill_residue as u32,
        decode_residue: decode_residue as u32,
    })
}

pub(super) async fn drain(instance: &Instance, request: DrainRequest) -> Result<DrainReply, Status> {
    let DrainRequest { undo, epoch } = request;
    let in_flight = instance.handle.drain(undo, epoch).await? as u32;
    tracing::info!(undo, epoch, in_flight, "drain");
    Ok(DrainReply { in_flight })
}
