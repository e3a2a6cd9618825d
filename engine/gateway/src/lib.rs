//! The gateway: OpenAI HTTP on one side, token ids on the other.
//!
//! ```text
//! client ── JSON ──> http (one file per dialect) ── ValidRequest ──> route ── Generate ──> decode instance
//! client <── SSE ─── http <── text (ids to text) <── Output ──────── route <── token ids ─ decode instance
//!                                                                      │
//!                               fleet (discovery + Watch streams) ─────┘ roles, load, cached pages
//! ```
//!
//! A gateway holds no state that another one needs: what it knows of instances is pushed to it, and a
//! stream's prompt and emitted tokens live with the client's connection.

pub mod fleet;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod options;
pub mod route;
pub mod text;
