//! The status of a ServingRole: what autoscalers and `kubectl get servingroles` look at.

use shoal_crds::{Condition, ServingRole, ServingRoleStatus, condition, time_from_unix};
use shoal_plan::{Instance, Phase, Role};

use super::Stall;
use crate::{clock, fleet::Fleet, labels};

/// What is true of a role: its instances as they were seen, and what keeps its count from being followed.
pub fn of_role(
    fleet: &Fleet,
    role: Role,
    object: &ServingRole,
    instances: &[Instance],
    stall: Option<&Stall>,
) -> ServingRoleStatus {
    let count = |holds: fn(&Instance) -> bool| {
        let found = instances.iter().filter(|instance| instance.role == role && holds(instance));
        i32::try_from(found.count()).unwrap_or(i32::MAX)
    };
    let ready = count(|instance| matches!(instance.phase, Phase::Ready { .. }));
    let (asked, generation) = (object.spec.replicas, object.metadata.generation);
    let conditions = if let Some(stall) = stall {
        vec![
            (condition::READY, false, stall.reason, stall.message.clone()),
            (condition::STALLED, true, stall.reason, stall.message.clone()),
        ]
    } else {
        let (all, message) = (ready >= asked, format!("{ready} of {asked} instances are ready"));
        vec![(condition::READY, all, if all { "AllReady" } else { "Scaling" }, message)]
    };
    ServingRoleStatus {
        observed_generation: generation,
        replicas: count(|instance| !matches!(instance.phase, Phase::Stopping { .. })),
        ready_replicas: ready,
        selector: labels::of_role(fleet.name(), role),
        conditions: conditions.into_iter().map(|found| stamped(object, found)).collect(),
    }
}

/// A condition with the time at which it last became true or false.
fn stamped(object: &ServingRole, (kind, holds, reason, message): (&str, bool, &str, String)) -> Condition {
    let status = if holds { "True" } else { "False" };
    let previous = object.status.as_ref().and_then(|previous| previous.condition(kind));
    let since = previous.filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: object.metadata.generation,
        last_transition_time: since.unwrap_or_else(|| time_from_unix(clock::now().as_second())),
    }
}
