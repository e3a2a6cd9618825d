//! Which lives are lived.

use std::{collections::BTreeSet, fmt};

use crate::kubernetes::proxy::{Call, Fault, Write};

/// What a user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Applies a spec.
    Apply { prefill: i32, decode: i32, max_batch: i32 },
    /// Deletes the resource and waits until nothing is left of it.
    Delete,
}

const fn apply(prefill: i32, decode: i32, max_batch: i32) -> Step {
    Step::Apply { prefill, decode, max_batch }
}

/// Creation, more decode, less decode, new settings.
pub const ORDINARY: &[Step] = &[apply(1, 1, 16), apply(1, 2, 16), apply(1, 1, 16), apply(1, 1, 8)];
/// Deleted and created again under its name.
pub const TWICE: &[Step] = &[apply(1, 2, 16), apply(1, 1, 16), Step::Delete, apply(1, 2, 8)];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disturbance {
    None,
    At(Fault, Call),
    /// Killed when that step has just been asked for.
    KillIn(usize),
    /// After step `restarted` the operator is killed, and starts again against a server that shows what was true
    /// when step `seen` had just been asked for.
    Stale {
        seen: usize,
        restarted: usize,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub steps: &'static [Step],
    pub disturbance: Disturbance,
    /// Seconds without a write, at the end.
    pub quiet: u64,
}

/// Without a write for this long, where nothing is said about it.
const QUIET: u64 = 3;
/// As long as several looks at rest take.
const LONG: u64 = 60;

impl Plan {
    pub fn undisturbed(steps: &'static [Step]) -> Self {
        Self { steps, disturbance: Disturbance::None, quiet: LONG }
    }

    fn new(steps: &'static [Step], disturbance: Disturbance) -> Self {
        Self { steps, disturbance, quiet: QUIET }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let life = if self.steps == ORDINARY { "" } else { " (deleted and created again)" };
        match &self.disturbance {
            Disturbance::None => write!(f, "undisturbed{life}"),
            Disturbance::At(fault, call) => write!(f, "{fault} at {call}"),
            Disturbance::KillIn(step) => write!(f, "kill when step {step} is asked for{life}"),
            Disturbance::Stale { seen, restarted } => {
                write!(f, "stale: restart after step {restarted} sees step {seen}{life}")
            }
        }
    }
}

/// Every kill at every write of an undisturbed life, restarts in every step, stale views of every earlier step, and
/// the other faults: at one write each, or at all of them.
pub fn plans(undisturbed: &[&[Write]], all: bool) -> Vec<Plan> {
    let calls = points(undisturbed);
    let at = |fault, call: &Call| Plan::new(ORDINARY, Disturbance::At(fault, call.clone()));
    let mut plans: Vec<Plan> = Vec::new();
    for call in &calls {
        plans.extend(Fault::KILLS.map(|fault| at(fault, call)));
    }
    for (number, fault) in Fault::OTHERS.into_iter().enumerate() {
        // Spread over the life, where not every write is disturbed by every fault.
        let some = number * calls.len() / Fault::OTHERS.len();
        let chosen = if all { &calls[..] } else { calls.get(some..=some).unwrap_or_default() };
        plans.extend(chosen.iter().map(|call| at(fault, call)));
    }
    for steps in [ORDINARY, TWICE] {
        plans.extend((0..=steps.len()).map(|step| Plan::new(steps, Disturbance::KillIn(step))));
        let pairs = (1..steps.len()).flat_map(|restarted| (0..restarted).map(move |seen| (seen, restarted)));
        let stale =
            pairs.filter(|(seen, restarted)| ![steps[*seen], steps[*restarted]].contains(&Step::Delete));
        plans.extend(stale.map(|(seen, restarted)| Plan::new(steps, Disturbance::Stale { seen, restarted })));
    }
    // One of each kind of disturbance rests for long.
    let mut kinds = BTreeSet::new();
    for plan in &mut plans {
        let kind = match &plan.disturbance {
            Disturbance::At(fault, _) => fault.to_string(),
            other => format!("{:?}", std::mem::discriminant(other)),
        };
        if kinds.insert(kind) {
            plan.quiet = LONG;
        }
    }
    plans
}

/// The writes that every undisturbed life has, in order: renewals of the lease but for the first depend on how long
/// a life takes.
fn points(undisturbed: &[&[Write]]) -> Vec<Call> {
    let first = undisturbed.first().copied().unwrap_or_default();
    let everywhere =
        |call: &Call| undisturbed.iter().all(|life| life.iter().any(|write| write.call == *call));
    let once = |call: &Call| !call.is_lease() || call.nth == 1;
    first.iter().map(|write| &write.call).filter(|call| once(call) && everywhere(call)).cloned().collect()
}
