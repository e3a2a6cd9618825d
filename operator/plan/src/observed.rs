//! What a host saw: plain values, whatever the host is made of.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shoal_crds::ServingClusterStatus;

use crate::CrashHistory;

/// Which new work an instance admits. State of the instance, never part of its name or template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Prefill,
    Decode,
}

impl Role {
    pub const ALL: [Self; 2] = [Self::Prefill, Self::Decode];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a process is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Started, not answering yet: loading weights.
    Starting { since: Timestamp },
    /// Answers, in its role.
    Ready { since: Timestamp },
    /// Alive, but has not answered since this time.
    Unresponsive { since: Timestamp },
    /// Admits nothing new, because it is to be removed.
    Draining { since: Timestamp },
    /// Gone without being asked to go. `exit` says how, for people.
    Crashed { at: Timestamp, exit: String },
    /// Does not run, and the host tries again by itself: a container that its node restarts, an image that
    /// cannot be pulled, no node with room. `why` says what is in the way, for people.
    Retrying { since: Timestamp, why: String },
    /// Asked to end, not gone yet.
    Stopping { since: Timestamp },
}

impl Phase {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting { .. } => "Starting",
            Self::Ready { .. } => "Ready",
            Self::Unresponsive { .. } => "Unresponsive",
            Self::Draining { .. } => "Draining",
            Self::Crashed { .. } => "Crashed",
            Self::Retrying { .. } => "Retrying",
            Self::Stopping { .. } => "Stopping",
        }
    }
}

/// One engine instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub name: String,
    pub role: Role,
    /// `Template::hash` it was made from.
    pub template: String,
    /// `model_digest` of that template.
    pub model: String,
    pub created: Timestamp,
    pub phase: Phase,
    pub crashes: CrashHistory,
    /// Requests it holds, running or waiting.
    pub in_flight: u32,
}

impl Instance {
    /// Counts towards its role: neither leaving nor gone for good.
    pub(crate) fn is_active(&self) -> bool {
        !matches!(self.phase, Phase::Draining { .. } | Phase::Stopping { .. })
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    /// Neither ready nor on its way there.
    pub(crate) fn is_failing(&self) -> bool {
        matches!(self.phase, Phase::Crashed { .. } | Phase::Unresponsive { .. } | Phase::Retrying { .. })
    }
}

/// The gateway, if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// `model_digest` whose text it speaks.
    pub model: String,
    pub port: u16,
    /// Never `Draining`: a gateway that is asked to stop finishes its streams first.
    pub phase: Phase,
    pub crashes: CrashHistory,
    /// It says itself that a request sent now would be answered.
    pub serving: bool,
    /// Base URL of its API.
    pub endpoint: String,
    /// Its host brings a changed one up beside the old one, and starts it again by itself when it fails: it
    /// is never stopped to be changed, and never replaced because of a crash.
    pub rolls: bool,
    /// What keeps a part of it from running while the rest serves, for people.
    pub trouble: Option<String>,
}

/// Everything a host saw at one moment. It may be out of date.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    pub instances: Vec<Instance>,
    pub gateway: Option<Gateway>,
    /// The status last published.
    pub status: Option<ServingClusterStatus>,
}
