//! What `shoal up` says as it goes: on a terminal one line per process that is redrawn, elsewhere one line
//! per change.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
};

use jiff::Timestamp;
use shoal_plan::{Observed, Phase, Plan};

use super::style;

/// Lines of processes shown while they start; more are counted.
const MAX_LINES: usize = 16;

#[derive(Debug)]
pub(crate) struct Live {
    terminal: bool,
    /// Lines drawn last, to be drawn over.
    drawn: usize,
    /// Phase last told of each process.
    told: BTreeMap<String, &'static str>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), drawn: 0, told: BTreeMap::new() }
    }

    /// A line that stays.
    pub(crate) fn say(&mut self, line: &str) {
        self.erase();
        println!("{line}");
    }

    /// Tells what changed and, on a terminal, how far everything is.
    pub(crate) fn show(&mut self, observed: &Observed, plan: &Plan, now: Timestamp) {
        for step in &plan.steps {
            self.say(&format!(
                "{} {}: {}",
                step.action.verb(),
                step.action.subject(),
                style::dim(&step.reason)
            ));
        }
        let rows = rows(observed);
        for (name, role, phase) in &rows {
            let word = phase.as_str();
            if self.told.insert(name.clone(), word) != Some(word) && worth_a_line(phase, self.terminal) {
                self.say(&format!("{name} {role}: {}", detail(phase)));
            }
        }
        self.told.retain(|name, _| rows.iter().any(|row| &row.0 == name));
        self.draw(&rows, plan, now);
    }

    fn draw(&mut self, rows: &[(String, &'static str, Phase)], plan: &Plan, now: Timestamp) {
        self.erase();
        if !self.terminal || plan.is_settled() {
            return;
        }
        for (name, role, phase) in rows.iter().take(MAX_LINES) {
            println!("  {name:<24} {role:<8} {:<13} {}", phase.as_str(), since(phase, now));
        }
        if rows.len() > MAX_LINES {
            println!("  and {} more", rows.len() - MAX_LINES);
        }
        self.drawn = rows.len().min(MAX_LINES) + usize::from(rows.len() > MAX_LINES);
        let _ = std::io::stdout().flush();
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            print!("\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }
}

fn rows(observed: &Observed) -> Vec<(String, &'static str, Phase)> {
    let gateway =
        observed.gateway.iter().map(|gateway| ("gateway".to_owned(), "gateway", gateway.phase.clone()));
    let engines = observed
        .instances
        .iter()
        .map(|instance| (instance.name.clone(), instance.role.as_str(), instance.phase.clone()));
    gateway.chain(engines).collect()
}

/// On a terminal the live lines tell of what goes well.
fn worth_a_line(phase: &Phase, terminal: bool) -> bool {
    !terminal || matches!(phase, Phase::Crashed { .. } | Phase::Unresponsive { .. } | Phase::Retrying { .. })
}

fn detail(phase: &Phase) -> String {
    match phase {
        Phase::Crashed { exit, .. } => style::bold(&format!("crashed ({exit})")),
        Phase::Unresponsive { .. } => style::bold("does not answer"),
        Phase::Retrying { why, .. } => style::bold(why),
        other => other.as_str().to_lowercase(),
    }
}

fn since(phase: &Phase, now: Timestamp) -> String {
    let (Phase::Starting { since } | Phase::Draining { since } | Phase::Stopping { since }) = phase else {
        return String::new();
    };
    format!("{:.1} s", now.duration_since(*since).as_secs_f64())
}
