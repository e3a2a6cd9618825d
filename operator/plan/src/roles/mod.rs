//! The instances of each role.
//!
//! ```text
//! remove  more than asked for: drain the least useful, never below what is asked for ready
//! heal    crashed, silent or never ready: replace, after a pause
//! scale   fewer than asked for: take back a draining one, else create
//! rollout an older template: one more, then one less, one per role at a time
//! retire  drained: delete when empty or out of time
//! ```
//!
//! Each instance gets at most one step in a plan.

mod heal;
mod remove;
mod retire;
mod rollout;
mod scale;

use crate::{
    Instance, Phase, Role, World,
    draft::{Action, Draft},
};

/// One role's instances.
struct Group<'w, 'a> {
    world: &'w World<'a>,
    role: Role,
    desired: usize,
    /// Neither draining nor stopping.
    active: Vec<&'a Instance>,
    draining: Vec<&'a Instance>,
}

impl<'w, 'a> Group<'w, 'a> {
    fn of(world: &'w World<'a>, role: Role) -> Self {
        let of_role = || world.instances.iter().copied().filter(|instance| instance.role == role);
        Self {
            world,
            role,
            desired: world.desired(role),
            active: of_role().filter(|instance| instance.is_active()).collect(),
            draining: of_role().filter(|instance| matches!(instance.phase, Phase::Draining { .. })).collect(),
        }
    }

    fn ready(&self) -> usize {
        self.active.iter().filter(|instance| instance.is_ready()).count()
    }

    fn outdated_ready(&self) -> usize {
        let outdated = |instance: &&&Instance| instance.is_ready() && !self.world.is_current(instance);
        self.active.iter().filter(outdated).count()
    }
}

pub(crate) fn plan(world: &World<'_>, draft: &mut Draft) {
    let mut names = scale::Names::new(world);
    for role in Role::ALL {
        let group = Group::of(world, role);
        let removed = remove::plan(&group, draft);
        heal::plan(&group, &removed, draft);
        let returned = scale::plan(&group, &mut names, draft);
        rollout::plan(&group, &mut names, draft);
        retire::plan(&group, &returned, draft);
    }
    for instance in &world.instances {
        if matches!(instance.phase, Phase::Stopping { .. }) {
            draft.wait(&instance.name, "it was asked to end", None);
        }
    }
}

/// Ends every instance, once no gateway is left to ask anything of them.
pub(crate) fn stop(world: &World<'_>, draft: &mut Draft) {
    for instance in &world.instances {
        if world.gateway.is_some() {
            draft.wait(&instance.name, "the gateway finishes its streams first", None);
        } else if matches!(instance.phase, Phase::Stopping { .. }) {
            draft.wait(&instance.name, "it was asked to end", None);
        } else {
            draft.step(Action::DeleteInstance { name: instance.name.clone() }, "the cluster is stopping");
        }
    }
}
