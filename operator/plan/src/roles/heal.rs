//! Instances that should serve and do not.
//!
//! One made from earlier settings is replaced at once and without a pause: a wrong setting must be
//! correctable while it is broken.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Group;
use crate::{
    Instance, Phase, backoff,
    draft::{Action, Draft, after},
    timing::{START_TIMEOUT, UNRESPONSIVE_GRACE},
};

pub(super) fn plan(group: &Group<'_, '_>, removed: &BTreeSet<&str>, draft: &mut Draft) {
    for instance in &group.active {
        if instance.is_ready() || removed.contains(instance.name.as_str()) {
            continue;
        }
        if !group.world.is_current(instance) {
            let state = instance.phase.as_str().to_lowercase();
            replace(group, instance, draft, format!("{state} with earlier settings"));
            continue;
        }
        let Some((due, reason)) = due(instance) else { continue };
        match due {
            Some(due) if group.world.now >= due => replace(group, instance, draft, reason),
            due => draft.wait(&instance.name, reason, due),
        }
    }
}

/// When the instance is to be replaced if it stays as it is, and why; never, if its host sees to it.
fn due(instance: &Instance) -> Option<(Option<Timestamp>, String)> {
    match &instance.phase {
        Phase::Crashed { at, exit } => {
            let count = instance.crashes.count;
            let due = after(*at, backoff::delay(&instance.name, count));
            Some((Some(due), format!("crashed ({exit}), crash {count} in a row")))
        }
        Phase::Unresponsive { since } => {
            Some((Some(after(*since, UNRESPONSIVE_GRACE)), "alive but not answering".to_owned()))
        }
        Phase::Starting { since } => {
            Some((Some(after(*since, START_TIMEOUT)), "loading the model".to_owned()))
        }
        Phase::Retrying { why, .. } => Some((None, why.clone())),
        Phase::Ready { .. } | Phase::Draining { .. } | Phase::Stopping { .. } => None,
    }
}

fn replace(group: &Group<'_, '_>, instance: &Instance, draft: &mut Draft, reason: String) {
    let template = Box::new(group.world.template.clone());
    draft
        .step(Action::ReplaceInstance { name: instance.name.clone(), role: instance.role, template }, reason);
}
