//! The plan while it is made, and the plan.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use shoal_crds::ServingClusterStatus;

use crate::{GatewayTemplate, Role, Template};

/// One act on the world. Each is safe to repeat: names are fixed by the planner, never chosen by the host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Action {
    /// Start an instance under a name that nobody holds. A host that finds the name taken does nothing.
    CreateInstance {
        name: String,
        role: Role,
        template: Box<Template>,
    },
    /// End what is left of the process, keep name, role and crash history, start again.
    ReplaceInstance {
        name: String,
        role: Role,
        template: Box<Template>,
    },
    /// Admit nothing new; work goes on. Recorded before the engine is told.
    DrainInstance {
        name: String,
    },
    /// Admit again.
    UndrainInstance {
        name: String,
    },
    /// End the process and forget the instance. Only ever after a drain, or of one that does not serve.
    DeleteInstance {
        name: String,
    },
    CreateGateway {
        template: GatewayTemplate,
    },
    /// End what is left of the process, keep its crash history, start again.
    ReplaceGateway {
        template: GatewayTemplate,
    },
    /// Let it finish its streams, then end it.
    StopGateway,
}

impl Action {
    /// The instance acted on, or "gateway".
    pub fn subject(&self) -> &str {
        match self {
            Self::CreateInstance { name, .. }
            | Self::ReplaceInstance { name, .. }
            | Self::DrainInstance { name }
            | Self::UndrainInstance { name }
            | Self::DeleteInstance { name } => name,
            Self::CreateGateway { .. } | Self::ReplaceGateway { .. } | Self::StopGateway => "gateway",
        }
    }

    /// What happens, in one word for logs.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::CreateInstance { .. } | Self::CreateGateway { .. } => "create",
            Self::ReplaceInstance { .. } | Self::ReplaceGateway { .. } => "replace",
            Self::DrainInstance { .. } => "drain",
            Self::UndrainInstance { .. } => "undrain",
            Self::DeleteInstance { .. } => "delete",
            Self::StopGateway => "stop",
        }
    }
}

/// An act and why, in words for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    pub action: Action,
    pub reason: String,
}

/// Something that is not done now, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// Instance name or "gateway".
    pub subject: String,
    pub reason: String,
    /// When time alone ends the wait; absent if only a change in what is observed does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What to do now, what is waited for, what to publish, when to look again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub waits: Vec<Wait>,
    pub status: ServingClusterStatus,
    /// Time until the earliest wait ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeue_after: Option<SignedDuration>,
}

impl Plan {
    /// Nothing to do and nothing awaited.
    pub fn is_settled(&self) -> bool {
        self.steps.is_empty() && self.waits.is_empty()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) steps: Vec<Step>,
    pub(crate) waits: Vec<Wait>,
}

impl Draft {
    pub(crate) fn step(&mut self, action: Action, reason: impl Into<String>) {
        self.steps.push(Step { action, reason: reason.into() });
    }

    pub(crate) fn wait(&mut self, subject: &str, reason: impl Into<String>, until: Option<Timestamp>) {
        self.waits.push(Wait { subject: subject.to_owned(), reason: reason.into(), until });
    }

    pub(crate) fn finish(self, status: ServingClusterStatus, now: Timestamp) -> Plan {
        let earliest = self.waits.iter().filter_map(|wait| wait.until).min();
        let requeue_after = earliest.map(|until| until.duration_since(now).max(SignedDuration::ZERO));
        Plan { steps: self.steps, waits: self.waits, status, requeue_after }
    }
}

/// `at + pause`, or the end of time.
pub(crate) fn after(at: Timestamp, pause: SignedDuration) -> Timestamp {
    at.checked_add(pause).unwrap_or(Timestamp::MAX)
}
