//! New settings: one instance more with them, then (in `remove`) one less without, one per role at a time.
//!
//! It stops where it is while an instance with the new settings fails, in any role: a bad setting then costs
//! nothing that serves.

use super::{
    Group,
    scale::{Names, create},
};
use crate::draft::Draft;

pub(super) fn plan(group: &Group<'_, '_>, names: &mut Names<'_>, draft: &mut Draft) {
    if group.outdated_ready() == 0 || group.active.len() != group.desired {
        return;
    }
    let world = group.world;
    let failing = world.instances.iter().find(|other| world.is_current(other) && other.is_failing());
    if let Some(failing) = failing {
        let reason = format!("the new settings wait: {} was started with them and fails", failing.name);
        draft.wait(group.role.as_str(), reason, None);
    } else if let Some(busy) = group.active.iter().find(|instance| !instance.is_ready()) {
        draft.wait(group.role.as_str(), format!("the new settings wait for {} to be ready", busy.name), None);
    } else {
        let left = group.outdated_ready();
        create(
            group,
            names,
            draft,
            format!("new settings; {left} {} instances have earlier ones", group.role),
        );
    }
}
