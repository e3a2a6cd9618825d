//! Processor time, from `/proc`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};

/// Clock ticks per second in `/proc`, the same on every machine that this runs on.
const TICKS: f64 = 100.0;

/// The test cluster's own enforcer of network policies: no part of a control plane, so it is left out.
const POLICIES: &str = "python3";

/// Seconds of processor time so far, by name of the process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage(BTreeMap<String, f64>);

impl Usage {
    /// Of the processes in a control group, and of one more.
    pub(crate) fn now(group: &Path, operator: u32) -> Result<Self> {
        let procs = group.join("cgroup.procs");
        let list = fs::read_to_string(&procs).with_context(|| procs.display().to_string())?;
        let mut seconds = BTreeMap::new();
        for pid in list.split_whitespace() {
            // A process may end while this reads.
            if let Some((name, time)) = of(pid)
                && name != POLICIES
            {
                *seconds.entry(name).or_default() += time;
            }
        }
        let (_, time) = of(&operator.to_string()).context("the operator does not run")?;
        seconds.insert("operator".to_owned(), time);
        Ok(Self(seconds))
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        let earlier = |name: &String| before.0.get(name).copied().unwrap_or_default();
        Self(self.0.iter().map(|(name, time)| (name.clone(), time - earlier(name))).collect())
    }

    pub(crate) fn operator(&self) -> f64 {
        self.0.get("operator").copied().unwrap_or_default()
    }

    pub(crate) fn whole(&self) -> f64 {
        self.0.values().sum()
    }

    /// The busiest first.
    pub(crate) fn describe(&self) -> String {
        let mut parts: Vec<_> = self.0.iter().filter(|(_, time)| **time >= 0.05).collect();
        parts.sort_by(|one, other| other.1.total_cmp(one.1));
        parts.iter().map(|(name, time)| format!("{name} {time:.1}")).collect::<Vec<_>>().join(", ")
    }
}

/// Name and seconds of a process.
fn of(pid: &str) -> Option<(String, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    // Fields 14 and 15 of the line: user and system time.
    Some((name, (ticks(11)? + ticks(12)?) / TICKS))
}
