//! Local mode: the operator's loop with processes in the place of pods and a directory in the place of an
//! API server.
//!
//! ```text
//! spec.yaml ─┐
//! processes ─┼─ observe ─> plan (shoal-plan) ─> apply ─> status.yaml, instances.json
//! records  ──┘
//! ```
//!
//! A record is written before the act it speaks of, so a host killed at any instruction leaves enough
//! for the next one to go on.

mod actuate;
mod children;
mod files;
mod host;
mod lock;
mod observe;
mod probe;
mod process;
mod programs;
mod record;
mod state_dir;

pub(crate) use host::{Host, Outcome};
pub(crate) use lock::Lock;
pub(crate) use process::end_now;
pub(crate) use programs::Programs;
pub(crate) use record::{Record, Subject};
pub(crate) use state_dir::{ClusterDir, StateDir, now};
