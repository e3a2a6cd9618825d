//! Events as lines.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde::Serialize;
use shoal_terminal::{Table, age};

use super::time::at;

/// What happened, to what, how often and when last.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventView {
    pub(crate) last_seen: Timestamp,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) reason: String,
    pub(crate) namespace: String,
    pub(crate) object: String,
    pub(crate) count: i32,
    pub(crate) message: String,
}

/// When it was last seen, by whichever field its writer filled in.
pub(crate) fn event_time(event: &Event) -> Timestamp {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let micro = series.map(|time| time.0);
    micro
        .or_else(|| event.last_timestamp.as_ref().map(|time| time.0))
        .or_else(|| event.event_time.as_ref().map(|time| time.0))
        .or_else(|| event.first_timestamp.as_ref().map(|time| time.0))
        .or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
        .map_or(Timestamp::UNIX_EPOCH, at)
}

impl From<&Event> for EventView {
    fn from(event: &Event) -> Self {
        let object = &event.involved_object;
        let name = |part: &Option<String>| part.clone().unwrap_or_default();
        let series = event.series.as_ref().and_then(|series| series.count);
        Self {
            last_seen: event_time(event),
            kind: event.type_.clone().unwrap_or_default(),
            reason: event.reason.clone().unwrap_or_default(),
            namespace: name(&object.namespace),
            object: format!("{}/{}", name(&object.kind), name(&object.name)),
            count: series.or(event.count).unwrap_or(1),
            message: one_line(event.message.as_deref().unwrap_or_default()),
        }
    }
}

/// Without control characters, which would steer the terminal.
pub(crate) fn one_line(text: &str) -> String {
    let spaced = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    spaced.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) fn events_table(events: &[EventView], namespaces: bool, now: Timestamp) -> Table {
    let mut head = vec!["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    if namespaces {
        head.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(&head);
    for event in events {
        let times = if event.count > 1 { format!(" (x{})", event.count) } else { String::new() };
        let mut cells = vec![
            format!("{}{times}", age(now.as_second() - event.last_seen.as_second())),
            event.kind.clone(),
            event.reason.clone(),
            event.object.clone(),
            event.message.clone(),
        ];
        if namespaces {
            cells.insert(0, event.namespace.clone());
        }
        table.row(cells);
    }
    table
}
