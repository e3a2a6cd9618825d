//! The operator in a real cluster, judged by what a user of kubectl and of the OpenAI API notices. One binary, so
//! that it links once. `make e2e` runs it; without a cluster each test says what it lacks and passes.
//!
//! Tests share a cluster and run beside each other, each in a namespace of its own. Those of `alone` hurt the
//! cluster itself: scripts/e2e.sh runs them after the others, one at a time.

mod admit;
mod alone;
mod download;
mod drift;
mod faults;
mod mistakes;
mod overlay;
mod plugin;
mod rbac;
mod reconcile;
mod scale;
mod serve;
mod store;
mod tls;
mod upgrade;
