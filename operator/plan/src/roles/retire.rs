//! Drained instances end when they hold nothing, as they report it, or when their time is over.

use std::collections::BTreeSet;

use super::Group;
use crate::{
    Phase,
    draft::{Action, Draft, after},
    timing::DRAIN_TIMEOUT,
};

pub(super) fn plan(group: &Group<'_, '_>, returned: &BTreeSet<&str>, draft: &mut Draft) {
    for instance in &group.draining {
        let Phase::Draining { since } = instance.phase else { continue };
        if returned.contains(instance.name.as_str()) {
            continue;
        }
        let deadline = after(since, DRAIN_TIMEOUT);
        let delete = Action::DeleteInstance { name: instance.name.clone() };
        if instance.in_flight == 0 {
            draft.step(delete, "drained");
        } else if group.world.now >= deadline {
            let left = instance.in_flight;
            draft.step(
                delete,
                format!("its {} s to drain are over; {left} requests left", DRAIN_TIMEOUT.as_secs()),
            );
        } else {
            draft.wait(
                &instance.name,
                format!("draining, {} requests left", instance.in_flight),
                Some(deadline),
            );
        }
    }
}
