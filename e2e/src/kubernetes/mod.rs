//! A real cluster to test the operator in: scripts/e2e.sh starts it and installs the chart.
//!
//! ```text
//! test ── kubectl, helm, client ──> API server <── operator ──> pods
//! test ── http ──> gateway's Service ──> gateway ──> engines
//! test ── scripts/cluster.sh ──> nodes and daemons, to hurt them
//! ```
//!
//! Each test has a namespace of its own, with the restricted Pod Security Standard enforced. A failure tells what
//! the test wanted, what it saw last, and what is in the namespace.

pub mod campaign;
mod cluster;
pub mod engines;
mod load;
mod namespace;
pub mod operator;
pub mod program;
pub mod proxy;
mod report;
mod serving;

pub use cluster::{Cluster, OPERATOR, OPERATOR_NAMESPACE};
pub use load::{Load, Tally};
pub use namespace::{Namespace, in_namespace};
pub use serving::{MODEL, Serving, kill, small};
