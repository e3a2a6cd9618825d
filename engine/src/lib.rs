//! One engine process: it turns token ids into token ids.
//!
//! ```text
//! gRPC, transfer ──commands──> scheduler thread ──batch──> backend (shoal-model)
//!        ^                       │   │  admission = role policy, fair queue
//!        └───────events──────────┘   └─ kv: page pool, prefix cache ── arena <── transfer threads
//! ```
//!
//! The scheduler is one thread without async; everything else talks to it through `scheduler::Handle`.

pub mod grammar;
pub mod instance;
pub mod kv;
pub mod metrics;
pub mod request;
pub mod sampling;
pub mod scheduler;
pub mod server;
pub mod transfer;
