//! The gateway: exactly one, of the spec's model, on the spec's port.
//!
//! A new model moves in three parts: instances of it come up beside the old ones; when at least as many of
//! them are ready in every role, the gateway changes over; then the old ones go. The gateway never speaks
//! one model's text to another model's instances.

use jiff::Timestamp;

use crate::{
    Gateway, GatewayTemplate, Phase, Role, World, backoff,
    draft::{Action, Draft, after},
    timing::{GATEWAY_START_TIMEOUT, UNRESPONSIVE_GRACE},
};

pub(crate) fn plan(world: &World<'_>, draft: &mut Draft) {
    let Some(gateway) = world.gateway else {
        draft.step(create(world), "the cluster has no gateway");
        return;
    };
    match difference(world, gateway) {
        Some(change) => follow(world, gateway, &change, draft),
        None => heal(world, gateway, draft),
    }
}

/// Ends the gateway, whatever state it is in.
pub(crate) fn stop(world: &World<'_>, draft: &mut Draft) {
    match world.gateway.map(|gateway| &gateway.phase) {
        None => {}
        Some(Phase::Stopping { .. }) => draft.wait("gateway", "it finishes its streams", None),
        Some(_) => draft.step(Action::StopGateway, "the cluster is stopping"),
    }
}

fn create(world: &World<'_>) -> Action {
    Action::CreateGateway { template: GatewayTemplate::of(&world.cluster.spec) }
}

/// What the spec asks for and the gateway is not.
fn difference(world: &World<'_>, gateway: &Gateway) -> Option<String> {
    let port = GatewayTemplate::of(&world.cluster.spec).port;
    if gateway.model != world.model {
        Some(format!("the model is now {}", world.template.model.name))
    } else if gateway.port != port {
        Some(format!("the port moves from {} to {port}", gateway.port))
    } else {
        None
    }
}

fn follow(world: &World<'_>, gateway: &Gateway, change: &str, draft: &mut Draft) {
    match &gateway.phase {
        Phase::Stopping { .. } => draft.wait("gateway", "it finishes its streams", None),
        Phase::Ready { .. } | Phase::Draining { .. } => {
            if let Some(role) = lagging(world, gateway) {
                let reason =
                    format!("{change}; it changes over when as many {role} instances of it are ready");
                draft.wait("gateway", reason, None);
            } else if gateway.rolls {
                draft.step(replace(world), change);
            } else {
                draft.step(Action::StopGateway, change);
            }
        }
        Phase::Starting { .. }
        | Phase::Unresponsive { .. }
        | Phase::Crashed { .. }
        | Phase::Retrying { .. } => {
            draft.step(replace(world), change);
        }
    }
}

/// The first role in which fewer instances of the new model than of the gateway's own are ready.
fn lagging(world: &World<'_>, gateway: &Gateway) -> Option<Role> {
    let ready = |role: Role, model: &str| {
        let serves = |instance: &&&crate::Instance| {
            instance.role == role && instance.is_ready() && instance.model == model
        };
        world.instances.iter().filter(serves).count()
    };
    Role::ALL
        .into_iter()
        .find(|role| world.desired(*role) > 0 && ready(*role, &world.model) < ready(*role, &gateway.model))
}

fn heal(world: &World<'_>, gateway: &Gateway, draft: &mut Draft) {
    let Some((due, reason)) = due(gateway) else { return };
    match due {
        Some(due) if world.now >= due => draft.step(replace(world), reason),
        due => draft.wait("gateway", reason, due),
    }
}

fn replace(world: &World<'_>) -> Action {
    Action::ReplaceGateway { template: GatewayTemplate::of(&world.cluster.spec) }
}

/// When the gateway is to be replaced if it stays as it is, and why.
fn due(gateway: &Gateway) -> Option<(Option<Timestamp>, String)> {
    match &gateway.phase {
        Phase::Ready { .. } | Phase::Draining { .. } => None,
        Phase::Stopping { .. } => Some((None, "it finishes its streams".to_owned())),
        Phase::Retrying { why, .. } => Some((None, why.clone())),
        Phase::Starting { .. } if gateway.rolls => Some((None, "starting".to_owned())),
        Phase::Starting { since } => {
            Some((Some(after(*since, GATEWAY_START_TIMEOUT)), "starting".to_owned()))
        }
        Phase::Unresponsive { since } => {
            Some((Some(after(*since, UNRESPONSIVE_GRACE)), "alive but not answering".to_owned()))
        }
        Phase::Crashed { at, exit } => {
            let count = gateway.crashes.count;
            let due = after(*at, backoff::delay("gateway", count));
            Some((Some(due), format!("crashed ({exit}), crash {count} in a row")))
        }
    }
}
