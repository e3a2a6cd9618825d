//! A fleet of real processes to test against, and the means to disturb it.
//!
//! ```text
//! test ── http ──> Gateway ──┐
//! test ── generation ────────┴─> Engine (decode) ── gRPC ──> Relay ──> Engine (prefill)
//!                                      ^                                    │ data socket
//!                                      └──────────── FaultProxy <───────────┘
//! ```
//!
//! In a Kubernetes cluster ([`kubernetes`]) the chart starts the operator, the operator starts the fleet, and a test
//! has what a user has: kubectl, helm, a client of the API and the gateway's address.
//!
//! Nothing here knows the inside of an engine or gateway: processes are started from their binaries and
//! watched through their own interfaces and `/proc`.

pub mod certificates;
pub mod condition;
pub mod engine;
pub mod fault;
pub mod fleet;
pub mod gateway;
pub mod generation;
pub mod http;
pub mod kubernetes;
pub mod model;
pub mod process;
pub mod relay;

pub use condition::until;
pub use engine::{Engine, EngineOptions, Role};
pub use fault::{Fault, FaultProxy};
pub use fleet::Fleet;
pub use gateway::Gateway;
pub use generation::{Answer, Ask};
pub use process::Process;
pub use relay::Relay;
