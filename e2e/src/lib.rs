//! A fleet of real processes to test against, and the means to disturb it.
//!
//! ```text
//! test ── http ──> Gateway ──┐
//! test ── generation ────────┴─> Engine (decode) ── gRPC ──> Relay ──> Engine (prefill)
//!                                      ^                                    │ data socket
//!                                      └──────────── FaultProxy <───────────┘
//! ```
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
