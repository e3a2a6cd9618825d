//! Fewer instances than asked for: a draining one is taken back before a new one is made, because it has
//! its weights and its prefix cache.

use std::{cmp::Reverse, collections::BTreeSet};

use super::Group;
use crate::{
    Instance, World,
    draft::{Action, Draft},
};

/// Hands out the smallest free `<cluster>-<number>`. From a stale view it hands out a name that is taken,
/// which a host refuses; a random name would make a second instance.
pub(super) struct Names<'w> {
    cluster: &'w str,
    used: BTreeSet<&'w str>,
    /// Every smaller number is taken.
    number: usize,
}

impl<'w> Names<'w> {
    pub(super) fn new(world: &'w World<'_>) -> Self {
        Self { cluster: &world.cluster.name, used: world.used_names(), number: 0 }
    }

    pub(super) fn next(&mut self) -> String {
        loop {
            let name = format!("{}-{}", self.cluster, self.number);
            self.number += 1;
            if !self.used.contains(name.as_str()) {
                return name;
            }
        }
    }
}

/// Plans what is missing; the names of those taken back.
pub(super) fn plan<'a>(group: &Group<'_, 'a>, names: &mut Names<'_>, draft: &mut Draft) -> BTreeSet<&'a str> {
    let (role, desired, active) = (group.role, group.desired, group.active.len());
    let missing = desired.saturating_sub(active);
    let mut returned = BTreeSet::new();
    for instance in returnable(group).into_iter().take(missing) {
        draft.step(
            Action::UndrainInstance { name: instance.name.clone() },
            format!("{active} of {desired} {role} instances, and it still runs"),
        );
        returned.insert(instance.name.as_str());
    }
    for _ in returned.len()..missing {
        create(group, names, draft, format!("{active} of {desired} {role} instances"));
    }
    if returned.is_empty() {
        returned.extend(rescue(group, draft));
    }
    returned
}

pub(super) fn create(group: &Group<'_, '_>, names: &mut Names<'_>, draft: &mut Draft, reason: String) {
    let template = Box::new(group.world.template.clone());
    draft.step(Action::CreateInstance { name: names.next(), role: group.role, template }, reason);
}

/// Draining instances of the current template, the busiest first.
fn returnable<'a>(group: &Group<'_, 'a>) -> Vec<&'a Instance> {
    let mut current: Vec<&Instance> =
        group.draining.iter().copied().filter(|instance| group.world.is_current(instance)).collect();
    current.sort_by_key(|instance| (Reverse(instance.in_flight), instance.name.as_str()));
    current
}

/// While no other instance of the role is ready, a draining one serves on, whatever it was made from.
fn rescue<'a>(group: &Group<'_, 'a>, draft: &mut Draft) -> Option<&'a str> {
    if group.desired == 0 || group.ready() > 0 {
        return None;
    }
    let instance = group.draining.first()?;
    let reason = format!("no other {} instance is ready", group.role);
    draft.step(Action::UndrainInstance { name: instance.name.clone() }, reason);
    Some(instance.name.as_str())
}
