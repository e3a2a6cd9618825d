//! The operator: the Kubernetes shell around the planner.
//!
//! ```text
//! API server ──watch──> cache ──> observe ──> Facts ─┐
//! ServingCluster ──> validate ──> Fleet ─────────────┼─> plan (pure) ─> Plan
//! engines ──GetState──> actuate ──> Answers ─────────┘                   │
//!                                                                        │
//! API server <──server-side apply── apply, steps <───────────────────────┤
//! engines <──SetRole, Drain── actuate <── marks of pods                  │
//! API server <──status── status, events <────────────────────────────────┘
//! ```
//!
//! Four doors lead out, each with a timeout, a counter and a span: `observe` is the only reader of objects,
//! `apply` and `steps` are the only writers of children, `status` the only writer of status, and `actuate`
//! the only caller of engines. No write is sent without the lease (`calls`, `lease`).

pub mod actuate;
pub mod apply;
pub mod cache;
pub mod calls;
pub mod certificates;
pub mod children;
pub mod clock;
pub mod context;
pub mod controller;
pub mod counts;
pub mod covers;
pub mod error;
pub mod events;
pub mod fetching;
pub mod fleet;
pub mod labels;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod options;
pub mod pace;
pub mod reconcile;
pub mod secrets;
pub mod server;
pub mod status;
pub mod steps;
pub mod validate;

#[cfg(test)]
mod scenarios;
