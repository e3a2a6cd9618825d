//! `status` as text: one screen for a cluster, one line for each of several.

use std::fmt::Write as _;

use jiff::Timestamp;
use shoal_terminal::{Table, age, style};

use super::{FleetView, PodView, event::one_line, events_table, time::at};

/// Events on the screen; `kubectl shoal events` has the others.
const EVENTS: usize = 5;

/// Everything of one cluster.
pub(crate) fn screen(view: &FleetView, width: Option<usize>, now: Timestamp) -> String {
    let mut text = format!("{}  {}  {}\n\n", style::bold(&view.name), coloured(view.health), view.reason());
    let _ = writeln!(text, "{}", facts(view).within(width, &[]));
    let _ = write!(text, "{}", pods(view, now).within(width, &["VERSION", "NODE", "RESTARTS", "AGE"]));
    let _ = match view.moving.as_slice() {
        [] => writeln!(text, "\nNothing moves."),
        moving => {
            let mut table = Table::new(&["MOVING", "WHY"]);
            for step in moving {
                table.row(vec![step.what.clone(), step.why.clone()]);
            }
            write!(text, "\n{}", table.within(width, &[]))
        }
    };
    let _ = write!(text, "\n{}", conditions(view, now).within(width, &["SINCE"]));
    let recent = &view.events[view.events.len().saturating_sub(EVENTS)..];
    if !recent.is_empty() {
        let _ = write!(text, "\n{}", events_table(recent, false, now).within(width, &["TYPE", "REASON"]));
    }
    text + &unseen(&view.unseen)
}

fn coloured(health: &str) -> String {
    match health {
        "Ready" => style::good(health),
        "Progressing" | "Degraded" => style::warning(health),
        _ => style::bad(health),
    }
}

fn facts(view: &FleetView) -> Table {
    let mut table = Table::new(&["Namespace:", &view.namespace]);
    let rows = [
        ("Model:", format!("{} from {}", view.model, view.source)),
        ("Endpoint:", view.endpoint.clone().unwrap_or_else(|| "-".to_owned())),
        ("Generation:", format!("{} (observed {})", view.generation, view.observed_generation)),
        ("Prefill:", format!("{} ready", view.prefill.summary)),
        ("Decode:", format!("{} ready", view.decode.summary)),
    ];
    for (name, value) in rows {
        table.row(vec![name.to_owned(), value]);
    }
    table
}

fn pods(view: &FleetView, now: Timestamp) -> Table {
    let head = ["POD", "ROLE", "STATE", "RUNS", "WAITS", "KV", "RESTARTS", "AGE", "VERSION", "NODE"];
    let mut table = Table::new(&head);
    for pod in &view.pods {
        let mut cells = vec![pod.pod.clone(), pod.role.clone(), pod.state.to_owned()];
        cells.extend(load(pod));
        cells.push(pod.restarts.to_string());
        cells.push(since(pod.created, now));
        cells.push(pod.version.clone());
        cells.push(if pod.node.is_empty() { "-".to_owned() } else { pod.node.clone() });
        table.row(cells);
    }
    table
}

fn load(pod: &PodView) -> [String; 3] {
    pod.load.as_ref().map_or_else(
        || ["-", "-", "-"].map(ToOwned::to_owned),
        |load| [load.running.to_string(), load.waiting.to_string(), format!("{:.0}%", load.kv_use() * 100.0)],
    )
}

fn since(then: Option<Timestamp>, now: Timestamp) -> String {
    then.map_or_else(|| "-".to_owned(), |then| age(now.as_second() - then.as_second()))
}

fn conditions(view: &FleetView, now: Timestamp) -> Table {
    let mut table = Table::new(&["CONDITION", "STATUS", "SINCE", "REASON", "MESSAGE"]);
    for found in &view.conditions {
        table.row(vec![
            found.type_.clone(),
            found.status.clone(),
            since(Some(at(found.last_transition_time.0)), now),
            found.reason.clone(),
            one_line(&found.message),
        ]);
    }
    table
}

/// Lines about what could not be seen; nothing if all could.
pub(crate) fn unseen(lines: &[String]) -> String {
    let mut text = String::new();
    if !lines.is_empty() {
        text.push_str("\nNot seen:\n");
    }
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// One line for each cluster.
pub(crate) fn overview(views: &[FleetView], namespaces: bool, now: Timestamp) -> Table {
    let mut head = vec!["NAME", "HEALTH", "PREFILL", "DECODE", "MOVING", "MODEL", "AGE", "WHY"];
    if namespaces {
        head.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(&head);
    for view in views {
        let mut cells = vec![
            view.name.clone(),
            view.health.to_owned(),
            view.prefill.summary.clone(),
            view.decode.summary.clone(),
            view.moving.len().to_string(),
            view.model.clone(),
            since(view.created, now),
            if view.health == "Ready" { String::new() } else { one_line(&view.reason()) },
        ];
        if namespaces {
            cells.insert(0, view.namespace.clone());
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::{EventView, fixtures};
    use super::*;

    fn view() -> FleetView {
        FleetView::from(&fixtures::fleet())
    }

    #[test]
    fn a_broken_fleet_on_one_screen() {
        insta::assert_snapshot!(screen(&view(), None, fixtures::now()));
    }

    #[test]
    fn the_same_on_a_narrow_terminal_loses_columns_and_no_line_is_longer() {
        let text = screen(&view(), Some(72), fixtures::now());
        insta::assert_snapshot!(text);
        let long: Vec<&str> = text.lines().skip(1).filter(|line| line.chars().count() > 72).collect();
        assert!(long.is_empty(), "{long:?}");
    }

    #[test]
    fn several_clusters_are_a_line_each_that_says_what_is_wrong() {
        insta::assert_snapshot!(overview(&[view()], true, fixtures::now()));
    }

    #[test]
    fn an_event_of_the_operator_says_why_its_instance_moves() {
        let found = view();
        let drains = found.moving.iter().find(|step| step.what.starts_with("chat-1-1"));
        assert_eq!(
            drains.map(|step| step.why.as_str()),
            Some("delete chat-1: fewer decode instances are asked for")
        );
    }

    #[test]
    fn event_views_do_not_carry_control_characters_to_the_terminal() {
        let event = fixtures::event("Pod", "chat-0-1", "Failed", "red \u{1b}[31m\nsecond");
        assert_eq!(EventView::from(&event).message, "red [31m second");
    }
}
