//! What the planner is told of an instance: its pod's state and its engine's word, put together.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shoal_plan::{Phase, Role};
use shoal_wire::rpc;

use super::pod::State;
use crate::actuate::{Answer, SILENCE};

/// A node that has not taken note of a pod for this long is not there. By then the control plane has marked it, so that the
/// next pod is placed elsewhere.
const NODE_SILENCE: SignedDuration = SignedDuration::from_secs(60);

/// Phase and requests in flight.
pub(super) fn of(
    state: &State,
    role: Role,
    draining: Option<Timestamp>,
    answer: Option<&Answer>,
    now: Timestamp,
) -> (Phase, u32) {
    match (state, draining) {
        (State::Stopping { since }, _) => (Phase::Stopping { since: *since }, 0),
        (State::Ended { at, exit, .. }, _) => (Phase::Crashed { at: *at, exit: exit.clone() }, 0),
        (State::Started { .. }, Some(since)) => (Phase::Draining { since }, held_while_draining(answer)),
        // It runs no more, so it holds nothing: its drain is over.
        (_, Some(since)) => (Phase::Draining { since }, 0),
        (State::Retrying { since, why }, None) => (Phase::Retrying { since: *since, why: why.clone() }, 0),
        // The time that an engine has for coming up begins when its model is there.
        (State::Fetching { .. }, None) => (Phase::Starting { since: now }, 0),
        (State::Assigned { since }, None) if now.duration_since(*since) >= NODE_SILENCE => {
            (Phase::Unresponsive { since: *since }, 0)
        }
        (State::Starting { since } | State::Assigned { since }, None) => {
            (Phase::Starting { since: *since }, 0)
        }
        (State::Started { since }, None) => answered(*since, role, answer, now),
    }
}

/// Before the engine says that it drains, it may still be given something.
fn held_while_draining(answer: Option<&Answer>) -> u32 {
    match answer.and_then(|answer| answer.said.as_ref()) {
        Some(state) if state.draining => in_flight(state),
        Some(state) => in_flight(state).max(1),
        None => 1,
    }
}

fn answered(since: Timestamp, role: Role, answer: Option<&Answer>, now: Timestamp) -> (Phase, u32) {
    let Some(Answer { silence, said }) = answer else { return (Phase::Starting { since }, 0) };
    let held = said.as_ref().map_or(0, in_flight);
    // A container that was started again owes no answer for the time before.
    let owed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let silence = (*silence).min(owed);
    if silence >= SILENCE {
        return (Phase::Unresponsive { since: now.checked_sub(silence).unwrap_or(since) }, held);
    }
    match said {
        Some(state) if !state.draining && has_role(state, role) => (Phase::Ready { since }, held),
        _ => (Phase::Starting { since }, held),
    }
}

fn in_flight(state: &rpc::EngineState) -> u32 {
    let load = state.load.unwrap_or_default();
    load.running + load.waiting
}

pub(crate) fn has_role(state: &rpc::EngineState, role: Role) -> bool {
    let wanted = match role {
        Role::Prefill => rpc::Role::Prefill,
        Role::Decode => rpc::Role::Decode,
    };
    state.role() == wanted
}
