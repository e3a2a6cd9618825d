//! What is known of one process, kept beside it so that the next host knows it too.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shoal_plan::{CrashHistory, Role};

use super::process::Identity;

/// A process and what it is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    /// `shoal_plan::model_digest`.
    pub(crate) model: String,
    pub(crate) created: Timestamp,
    pub(crate) subject: Subject,
    pub(crate) life: Life,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    Engine {
        role: Role,
        /// `Template::hash`.
        template: String,
        /// Set before the engine is told to drain, cleared before it is told to go on.
        draining: Option<Timestamp>,
    },
    Gateway {
        port: u16,
    },
}

/// Where the process is in its life. Each field is written before or right after the act it speaks of.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) process: Option<Identity>,
    /// When this process was started, or is about to be.
    pub(crate) started: Option<Timestamp>,
    pub(crate) ready: Option<Ready>,
    pub(crate) stopping: Option<Timestamp>,
    pub(crate) crashed: Option<Crash>,
    pub(crate) crashes: CrashHistory,
}

impl Life {
    /// A life about to begin, with the crashes of the last one.
    pub(crate) fn beginning(at: Timestamp, crashes: CrashHistory) -> Self {
        Self { started: Some(at), crashes, ..Self::default() }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.process.as_ref().is_some_and(Identity::is_alive)
    }
}

/// What a process said when it began to listen, and since when it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) since: Timestamp,
    /// Where it answers: gRPC of an engine, HTTP of a gateway.
    pub(crate) address: String,
    /// Of an engine process; empty for a gateway.
    pub(crate) incarnation: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Crash {
    pub(crate) at: Timestamp,
    pub(crate) exit: String,
}
