//! More instances than asked for: which goes, and whether it may go now.
//!
//! Order, documented and tested: an older template before the current one; within that, one that does not
//! serve before one that does; then fewest requests in flight; then youngest (the smallest prefix cache);
//! then by name.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::Group;
use crate::{
    Instance, Phase,
    draft::{Action, Draft},
};

/// Why a ready instance may not leave yet.
enum Hold {
    /// Fewer than asked for would be ready: nobody leaves before another is.
    Capacity(String),
    /// The gateway needs it until it changes over to the new model; other outdated ones may go meanwhile.
    Gateway(String),
}

/// Ready instances that stay, in all and by model: counted once and kept up to date, so that a plan over many
/// instances does not count them for each.
struct Staying<'a> {
    ready: usize,
    of_model: BTreeMap<&'a str, usize>,
}

impl<'a> Staying<'a> {
    fn of(group: &Group<'_, 'a>) -> Self {
        let mut staying = Self { ready: 0, of_model: BTreeMap::new() };
        for instance in group.active.iter().filter(|instance| instance.is_ready()) {
            staying.ready += 1;
            *staying.of_model.entry(&instance.model).or_default() += 1;
        }
        staying
    }

    fn without(&mut self, victim: &Instance) {
        if let (true, Some(count)) = (victim.is_ready(), self.of_model.get_mut(victim.model.as_str())) {
            self.ready -= 1;
            *count -= 1;
        }
    }

    fn is_last_of_its_model(&self, victim: &Instance) -> bool {
        self.of_model.get(victim.model.as_str()) == Some(&1)
    }
}

/// Plans removals; the names of those that leave.
pub(super) fn plan<'a>(group: &Group<'_, 'a>, draft: &mut Draft) -> BTreeSet<&'a str> {
    let mut removed = BTreeSet::new();
    let mut staying = Staying::of(group);
    let mut held = false;
    let surplus = group.active.len().saturating_sub(group.desired);
    for victim in in_order(group) {
        // A current instance does not leave in the place of an older one.
        if removed.len() == surplus || (held && group.world.is_current(victim)) {
            break;
        }
        match hold(group, victim, &staying) {
            Some(Hold::Capacity(why)) => {
                draft.wait(&victim.name, why, None);
                break;
            }
            Some(Hold::Gateway(why)) => {
                draft.wait(&victim.name, why, None);
                held = true;
            }
            None => {
                let name = victim.name.clone();
                let ready = victim.is_ready();
                let action =
                    if ready { Action::DrainInstance { name } } else { Action::DeleteInstance { name } };
                draft.step(action, why_removed(group, victim));
                staying.without(victim);
                removed.insert(victim.name.as_str());
            }
        }
    }
    removed
}

fn in_order<'a>(group: &Group<'_, 'a>) -> Vec<&'a Instance> {
    let mut order = group.active.clone();
    order.sort_by_key(|instance| {
        let current = group.world.is_current(instance);
        (current, instance.is_ready(), instance.in_flight, Reverse(instance.created), instance.name.as_str())
    });
    order
}

fn hold(group: &Group<'_, '_>, victim: &Instance, staying: &Staying<'_>) -> Option<Hold> {
    if !victim.is_ready() {
        return None;
    }
    let (role, desired, ready) = (group.role, group.desired, staying.ready);
    if ready <= desired {
        let why = format!("{ready} of {desired} {role} instances are ready; it stays until another one is");
        return Some(Hold::Capacity(why));
    }
    let gateway = group.world.gateway?;
    let served = gateway.model == victim.model && !matches!(gateway.phase, Phase::Stopping { .. });
    (desired > 0 && served && staying.is_last_of_its_model(victim)).then(|| {
        Hold::Gateway(format!(
            "the gateway still serves its model and it is the last ready {role} instance of it"
        ))
    })
}

fn why_removed(group: &Group<'_, '_>, victim: &Instance) -> String {
    let (role, desired, active) = (group.role, group.desired, group.active.len());
    if group.world.is_current(victim) {
        format!("{active} {role} instances, {desired} asked for")
    } else {
        format!("made from earlier settings, and enough {role} instances are ready without it")
    }
}
