//! What gateway, decode and prefill say to each other.
//!
//! ```text
//! gateway ──Generate──> decode ──Prefill──> prefill          gRPC (`rpc`)
//!                       decode <══pages════ prefill          data sockets (`frame`)
//! gateway <──Watch───── every engine                         gRPC
//! ```
//!
//! In a cluster gRPC runs within mutual TLS (`tls`).
//!
//! Nothing here knows HTTP dialects, Kubernetes or a model's arithmetic.

pub mod auth;
pub mod fingerprint;
pub mod frame;
pub mod limits;
pub mod page_key;
pub mod tls;
pub mod watch;

/// Generated from `proto/engine.proto`.
#[allow(clippy::all, clippy::pedantic, missing_debug_implementations, unreachable_pub, unused_qualifications)]
pub mod rpc {
    tonic::include_proto!("shoal.engine.v1");
}

pub use auth::FleetSecret;
pub use page_key::{PageKey, PageKeyer};

/// Version of everything in this crate; peers of different versions refuse each other.
pub const PROTOCOL: u32 = 1;
