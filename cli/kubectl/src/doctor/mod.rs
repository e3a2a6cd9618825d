//! Checks. Each says what it found and, where that is not as it should be, what to do.

mod answers;
mod control_plane;
mod objects;
mod rights;

use std::fmt::Write as _;

use kube::ResourceExt as _;
use serde::Serialize;
use shoal_crds::ServingCluster;
use shoal_terminal::{failure::Failure, style};

use crate::cluster::{Connection, Fleet, Wanted};

pub(crate) use control_plane::{OPERATOR_NAMESPACE, operators};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    Ok,
    /// Worth knowing; nothing that has to be done.
    Note,
    Fail,
    /// It could not be looked at.
    Unseen,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Check {
    /// What was looked at: `operator`, or `team/chat pods`.
    pub(crate) subject: String,
    pub(crate) outcome: Outcome,
    pub(crate) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

impl Check {
    fn new(outcome: Outcome, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), outcome, found: found.into(), remedy: None }
    }

    fn ok(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Outcome::Ok, subject, found)
    }

    fn note(subject: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..Self::new(Outcome::Note, subject, found) }
    }

    fn fail(subject: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..Self::new(Outcome::Fail, subject, found) }
    }

    fn unseen(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Outcome::Unseen, subject, found)
    }
}

/// What all fleets need.
pub(crate) async fn installation(
    connection: &Connection,
    operator_namespace: &str,
) -> Result<Vec<Check>, Failure> {
    let (mut checks, now) = control_plane::server(connection).await?;
    checks.extend(control_plane::definitions(connection).await);
    checks.extend(control_plane::operator(connection, operator_namespace, now).await);
    checks.push(rights::rights(connection).await);
    Ok(checks)
}

/// One fleet.
pub(crate) async fn fleet(connection: &Connection, cluster: ServingCluster) -> Vec<Check> {
    let subject = format!("{}/{}", cluster.namespace().unwrap_or_default(), cluster.name_any());
    let fleet = Fleet::read(connection, cluster, Wanted { figures: true, events: true }).await;
    let mut checks = objects::objects(connection, &fleet).await;
    checks.extend(answers::answers(connection, &fleet).await);
    for check in &mut checks {
        check.subject = format!("{subject} {}", check.subject);
    }
    checks
}

pub(crate) fn unlisted(connection: &Connection, failure: &Failure) -> Check {
    Check::fail(
        "servingclusters",
        failure.to_string(),
        format!(
            "name another namespace with -n, or see: kubectl get servingclusters -n {}",
            connection.namespace
        ),
    )
}

/// A line for each check, and one for its remedy.
pub(crate) fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match check.outcome {
            Outcome::Ok => style::good("ok    "),
            Outcome::Note => style::warning("note  "),
            Outcome::Fail => style::bad("FAIL  "),
            Outcome::Unseen => style::dim("unseen"),
        };
        let _ = writeln!(text, "{mark}  {}: {}", check.subject, check.found);
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(text, "        -> {remedy}");
        }
    }
    let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
    let _ = writeln!(
        text,
        "\n{} ok, {} to note, {} failed, {} unseen",
        count(Outcome::Ok),
        count(Outcome::Note),
        count(Outcome::Fail),
        count(Outcome::Unseen)
    );
    text
}
