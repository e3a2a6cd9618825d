//! HTTP: one file per dialect; around them limits, authentication, errors and the server itself.
//!
//! ```text
//! server (connections) -> routes -> app::gate (id, key, counts) -> chat | completions | … (dialect)
//!    dialect: body -> fields -> text -> submit (lane, session) -> generation -> sse or one answer
//! ```

pub mod app;
pub mod body;
mod chat;
mod completions;
pub mod error;
pub mod fields;
mod generation;
mod health;
pub mod keys;
mod logprobs;
mod models;
mod patience;
pub mod routes;
mod sampling;
pub mod server;
mod sse;
mod submit;
mod tokenize;
mod usage;
