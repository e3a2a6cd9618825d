//! What a namespace holds, for the message of a failed test.

use super::{Namespace, OPERATOR_NAMESPACE, program};

/// Lines of the operator's log.
const TAIL: &str = "--tail=40";

pub(super) async fn of(namespace: &Namespace) -> String {
    let name = ["--namespace", namespace.name.as_str()];
    let operator = ["--namespace", OPERATOR_NAMESPACE];
    let status = "--output=jsonpath={range .items[*]}{.metadata.name}: {.status}{\"\\n\"}{end}";
    let questions: [(&str, Vec<&str>); 5] = [
        ("ServingClusters", [&name[..], &["get", "servingclusters", status]].concat()),
        ("pods", [&name[..], &["get", "pods", "--output=wide", "--show-labels"]].concat()),
        ("events", [&name[..], &["get", "events", "--sort-by=.metadata.creationTimestamp"]].concat()),
        ("the operator's pods", [&operator[..], &["get", "pods", "--output=wide"]].concat()),
        ("the operator's log", [&operator[..], &["logs", "deployment/shoal-operator", TAIL]].concat()),
    ];
    let mut parts = vec![format!("--- namespace {} ---", namespace.name)];
    for (what, arguments) in questions {
        let answer = program::kubectl(&arguments).await.unwrap_or_else(|error| format!("{error:#}"));
        parts.push(format!("{what}:\n{answer}"));
    }
    parts.join("\n")
}
