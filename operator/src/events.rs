//! Events: one per edge, in the planner's own words. A step that changed nothing and a condition that stayed
//! as it was say nothing.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use shoal_crds::{ServingClusterStatus, condition};
use shoal_plan::{Action, Step};

use crate::calls::Calls;

/// Characters of a note; the API server takes at most 1 KiB.
const NOTE: usize = 900;

/// Subjects named in one note; the rest are counted.
const NAMED: usize = 5;
/// Events of one plan. Steps that differ only in their subject share one; what is beyond is in the log.
const EVENTS: usize = 16;

/// What was done, in its own words.
pub fn of_steps(steps: &[&Step]) -> Vec<Event> {
    let mut alike: Vec<Vec<&Step>> = Vec::new();
    for step in steps {
        let same = |group: &&mut Vec<&Step>| {
            group[0].action.verb() == step.action.verb() && group[0].reason == step.reason
        };
        match alike.iter_mut().find(same) {
            Some(group) => group.push(step),
            None => alike.push(vec![step]),
        }
    }
    alike.iter().take(EVENTS).map(|group| of_group(group)).collect()
}

/// Of steps that are alike; at least one.
fn of_group(group: &[&Step]) -> Event {
    let Step { action, reason: why } = group[0];
    let kind = match action {
        Action::ReplaceInstance { .. } | Action::ReplaceGateway { .. } => EventType::Warning,
        _ => EventType::Normal,
    };
    let named: Vec<&str> = group.iter().take(NAMED).map(|step| step.action.subject()).collect();
    let more = match group.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let verb = action.verb();
    event(kind, reason(action), &format!("{verb} {}{more}: {why}", named.join(", ")), verb)
}

fn reason(action: &Action) -> &'static str {
    match action {
        Action::CreateInstance { .. } => "CreateInstance",
        Action::ReplaceInstance { .. } => "ReplaceInstance",
        Action::DrainInstance { .. } => "DrainInstance",
        Action::UndrainInstance { .. } => "UndrainInstance",
        Action::DeleteInstance { .. } => "DeleteInstance",
        Action::CreateGateway { .. } => "CreateGateway",
        Action::ReplaceGateway { .. } => "ChangeGateway",
        Action::StopGateway => "StopGateway",
    }
}

/// A certificate was made anew; a warning if the one before could not be used.
pub fn of_certificate(reason: &str, note: &str, damaged: bool) -> Event {
    event(if damaged { EventType::Warning } else { EventType::Normal }, reason, note, "Rotate")
}

/// The fleet secret was gone, and is there again.
pub fn of_lost_secret() -> Event {
    let note = "the fleet secret was deleted; the value that its pods use is put back";
    event(EventType::Warning, "RestoreSecret", note, "Restore")
}

/// Conditions that became true or false, or that trouble came and went.
pub fn of_status(previous: Option<&ServingClusterStatus>, now: &ServingClusterStatus) -> Vec<Event> {
    let held = |status: Option<&ServingClusterStatus>, kind| status.is_some_and(|status| status.is(kind));
    let mut events = Vec::new();
    for (kind, good) in [(condition::READY, true), (condition::DEGRADED, false), (condition::STALLED, false)]
    {
        let holds = now.is(kind);
        if holds == held(previous, kind) {
            continue;
        }
        let weight = if holds == good { EventType::Normal } else { EventType::Warning };
        match now.condition(kind) {
            Some(found) => events.push(event(weight, &found.reason, &found.message, "Reconcile")),
            None => {
                events.push(event(weight, "Resumed", "what stood in the way is gone", "Reconcile"));
            }
        }
    }
    events
}

fn event(type_: EventType, reason: &str, note: &str, action: &str) -> Event {
    let note = Some(note.chars().take(NOTE).collect());
    Event { type_, reason: reason.to_owned(), note, action: action.to_owned(), secondary: None }
}

/// An event that cannot be written is logged: it changes nothing.
pub async fn publish(calls: &Calls, recorder: &Recorder, about: &ObjectReference, events: &[Event]) {
    for event in events {
        if let Err(error) = Box::pin(calls.publish(recorder.publish(event, about))).await {
            tracing::warn!(%error, reason = event.reason, "an event was not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_crds::{Condition, time_from_unix};

    use super::*;

    fn status(conditions: &[(&str, bool)]) -> ServingClusterStatus {
        let one = |(kind, holds): &(&str, bool)| Condition {
            type_: (*kind).to_owned(),
            status: if *holds { "True" } else { "False" }.to_owned(),
            reason: format!("{kind}{holds}"),
            message: "why".to_owned(),
            observed_generation: Some(1),
            last_transition_time: time_from_unix(0),
        };
        ServingClusterStatus { conditions: conditions.iter().map(one).collect(), ..Default::default() }
    }

    fn told(previous: Option<&ServingClusterStatus>, now: &ServingClusterStatus) -> Vec<(EventType, String)> {
        of_status(previous, now).into_iter().map(|event| (event.type_, event.reason)).collect()
    }

    #[test]
    fn a_thousand_steps_for_one_reason_are_one_event_and_many_reasons_are_few() {
        let step = |number: usize, reason: &str| Step {
            action: Action::DeleteInstance { name: format!("chat-{number}") },
            reason: reason.to_owned(),
        };
        let steps: Vec<Step> = (0..1000).map(|number| step(number, "drained")).collect();
        let events = of_steps(&steps.iter().collect::<Vec<_>>());
        let note = "delete chat-0, chat-1, chat-2, chat-3, chat-4 and 995 more: drained";
        assert_eq!(events.iter().map(|event| event.note.as_deref()).collect::<Vec<_>>(), [Some(note)]);
        let steps: Vec<Step> = (0..1000).map(|number| step(number, &number.to_string())).collect();
        assert_eq!(of_steps(&steps.iter().collect::<Vec<_>>()).len(), EVENTS);
    }

    #[test]
    fn an_event_tells_of_an_edge_and_never_of_a_state() {
        let (down, up) = (status(&[("Ready", false)]), status(&[("Ready", true)]));
        assert_eq!(told(None, &down), []);
        assert_eq!(told(Some(&down), &up), [(EventType::Normal, "Readytrue".to_owned())]);
        assert_eq!(told(Some(&up), &up), []);
        assert_eq!(told(Some(&up), &down), [(EventType::Warning, "Readyfalse".to_owned())]);
    }

    #[test]
    fn trouble_that_ends_is_told_though_its_condition_is_gone() {
        let (fine, stalled) = (status(&[("Ready", true)]), status(&[("Ready", true), ("Stalled", true)]));
        assert_eq!(told(Some(&fine), &stalled), [(EventType::Warning, "Stalledtrue".to_owned())]);
        assert_eq!(told(Some(&stalled), &fine), [(EventType::Normal, "Resumed".to_owned())]);
    }
}
