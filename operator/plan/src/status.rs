//! The status to publish. Equal worlds give equal statuses: no counter or time in it moves by itself.

use shoal_crds::{
    Condition, RoleStatus, ServingClusterStatus,
    condition::{DEGRADED, PROGRESSING, READY},
    time_from_unix,
};

use crate::{Instance, Phase, Role, World, draft::Draft};

/// Reasons of the conditions, one per situation.
pub mod reason {
    pub const SERVING: &str = "Serving";
    pub const STARTING: &str = "Starting";
    pub const GATEWAY_DOWN: &str = "GatewayDown";
    pub const NO_DECODE: &str = "NoDecodeReady";
    pub const STOPPING: &str = "Stopping";
    pub const RECONCILING: &str = "Reconciling";
    pub const COMPLETE: &str = "Complete";
    pub const FAILING: &str = "InstancesFailing";
    pub const HEALTHY: &str = "Healthy";
}

/// Instances named in one message; the rest are counted.
const NAMED: usize = 5;

pub(crate) fn of(
    world: &World<'_>,
    previous: Option<&ServingClusterStatus>,
    draft: &Draft,
) -> ServingClusterStatus {
    let role = |role| {
        let desired = if world.cluster.stopping { 0 } else { world.desired(role) };
        RoleStatus::new(i32::try_from(desired).unwrap_or(i32::MAX), ready(world, role))
    };
    let (prefill, decode) = (role(Role::Prefill), role(Role::Decode));
    let conditions = [readiness(world, &prefill, &decode), progress(world, draft), degradation(world)];
    let up = world.gateway.filter(|gateway| matches!(gateway.phase, Phase::Ready { .. }));
    ServingClusterStatus {
        observed_generation: Some(world.cluster.generation),
        conditions: conditions.into_iter().map(|found| stamped(world, previous, found)).collect(),
        // The host's to tell: it asks whoever fetches.
        loading: None,
        endpoint: up.map(|gateway| gateway.endpoint.clone()),
        prefill,
        decode,
    }
}

fn ready(world: &World<'_>, role: Role) -> i32 {
    let serves = |instance: &&&Instance| instance.role == role && instance.is_ready();
    i32::try_from(world.instances.iter().filter(serves).count()).unwrap_or(i32::MAX)
}

/// A condition without its time.
struct Found {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// Keeps the time of the last change of `status`, as conditions are defined.
fn stamped(world: &World<'_>, previous: Option<&ServingClusterStatus>, found: Found) -> Condition {
    let status = if found.holds { "True" } else { "False" };
    let unchanged =
        previous.and_then(|previous| previous.condition(found.kind)).filter(|old| old.status == status);
    Condition {
        type_: found.kind.to_owned(),
        status: status.to_owned(),
        reason: found.reason.to_owned(),
        message: found.message,
        observed_generation: Some(world.cluster.generation),
        last_transition_time: unchanged
            .map_or_else(|| time_from_unix(world.now.as_second()), |old| old.last_transition_time.clone()),
    }
}

/// True when a request that is sent now is answered, as the gateway itself says. Decode instances read
/// prompts themselves while no prefill instance is ready, so prefill does not decide it.
fn readiness(world: &World<'_>, prefill: &RoleStatus, decode: &RoleStatus) -> Found {
    let gateway = world.gateway.map(|gateway| &gateway.phase);
    let serving = world.gateway.is_some_and(|gateway| gateway.serving);
    let counts = format!("prefill {}, decode {}", prefill.summary, decode.summary);
    let (holds, reason, message) = match gateway {
        _ if world.cluster.stopping => (false, reason::STOPPING, "the cluster is stopping".to_owned()),
        Some(Phase::Ready { .. }) if serving => (true, reason::SERVING, counts),
        Some(Phase::Ready { .. }) if any_starting(world) => (false, reason::STARTING, counts),
        Some(Phase::Ready { .. }) => (false, reason::NO_DECODE, counts),
        None | Some(Phase::Starting { .. }) => {
            (false, reason::STARTING, format!("gateway starting, {counts}"))
        }
        Some(phase) => {
            (false, reason::GATEWAY_DOWN, format!("gateway {}, {counts}", phase.as_str().to_lowercase()))
        }
    };
    Found { kind: READY, holds, reason, message }
}

fn any_starting(world: &World<'_>) -> bool {
    world.instances.iter().any(|instance| matches!(instance.phase, Phase::Starting { .. }))
}

fn progress(world: &World<'_>, draft: &Draft) -> Found {
    let moving = !draft.steps.is_empty() || !draft.waits.is_empty();
    if !moving {
        let message = "the fleet is what the spec asks for".to_owned();
        return Found { kind: PROGRESSING, holds: false, reason: reason::COMPLETE, message };
    }
    let phases = ["Starting", "Draining", "Stopping"].map(|phase| {
        let names = world.instances.iter().filter(|instance| instance.phase.as_str() == phase);
        (phase.to_lowercase(), names.map(|instance| instance.name.as_str()).collect::<Vec<_>>())
    });
    let parts: Vec<String> = phases
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(phase, names)| format!("{phase}: {}", listed(names)))
        .collect();
    let message = if parts.is_empty() { first(draft) } else { parts.join("; ") };
    Found { kind: PROGRESSING, holds: true, reason: reason::RECONCILING, message }
}

/// What is done or awaited first, in its own words.
fn first(draft: &Draft) -> String {
    let step = draft
        .steps
        .first()
        .map(|step| format!("{} {}: {}", step.action.verb(), step.action.subject(), step.reason));
    let wait = || draft.waits.first().map(|wait| format!("{}: {}", wait.subject, wait.reason));
    step.or_else(wait).unwrap_or_default()
}

fn degradation(world: &World<'_>) -> Found {
    let mut failing: Vec<String> =
        world.instances.iter().filter_map(|instance| failure(&instance.name, &instance.phase)).collect();
    failing.extend(world.gateway.and_then(|gateway| {
        let trouble = || gateway.trouble.as_ref().map(|why| format!("gateway: {why}"));
        failure("gateway", &gateway.phase).or_else(trouble)
    }));
    if failing.is_empty() {
        let message = "every process answers".to_owned();
        return Found { kind: DEGRADED, holds: false, reason: reason::HEALTHY, message };
    }
    let names: Vec<&str> = failing.iter().map(String::as_str).collect();
    Found { kind: DEGRADED, holds: true, reason: reason::FAILING, message: listed(&names) }
}

fn failure(name: &str, phase: &Phase) -> Option<String> {
    match phase {
        Phase::Crashed { exit, .. } => Some(format!("{name} crashed ({exit})")),
        Phase::Unresponsive { .. } => Some(format!("{name} does not answer")),
        Phase::Retrying { why, .. } => Some(format!("{name}: {why}")),
        _ => None,
    }
}

fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(NAMED) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}
