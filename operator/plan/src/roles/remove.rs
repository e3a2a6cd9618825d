//! More instances than asked for: which goes, and whether it may go now.
//!
//! Order, documented and tested: an older template before the current one; within that, one that does not
//! serve before one that does; then fewest requests in flight; then youngest (the smallest prefix cache);
//! then by name.

use std::{cmp::Reverse, collections::BTreeSet};

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

/// Plans removals; the names of those that leave.
pub(super) fn plan<'a>(group: &Group<'_, 'a>, draft: &mut Draft) -> BTreeSet<&'a str> {
    let mut removed = BTreeSet::new();
    let mut held = false;
    let surplus = group.active.len().saturating_sub(group.desired);
    for victim in in_order(group) {
        // A current instance does not leave in the place of an older one.
        if removed.len() == surplus || (held && group.world.is_current(victim)) {
            break;
        }
        match hold(group, victim, &removed) {
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

fn hold(group: &Group<'_, '_>, victim: &Instance, removed: &BTreeSet<&str>) -> Option<Hold> {
    if !victim.is_ready() {
        return None;
    }
    let (role, desired) = (group.role, group.desired);
    let stays = |other: &&&Instance| other.is_ready() && !removed.contains(other.name.as_str());
    let ready = group.active.iter().filter(stays).count();
    if ready <= desired {
        let why = format!("{ready} of {desired} {role} instances are ready; it stays until another one is");
        return Some(Hold::Capacity(why));
    }
    let gateway = group.world.gateway?;
    let served = gateway.model == victim.model && !matches!(gateway.phase, Phase::Stopping { .. });
    let of_its_model = |other: &&&Instance| stays(other) && other.model == victim.model;
    let last = group.active.iter().filter(of_its_model).count() == 1;
    (desired > 0 && served && last).then(|| {
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
