//! Brings the files of a model to a folder before an engine or a gateway starts.
//!
//! ```text
//! URL ── source ──> bytes, from any offset ── file ──> NAME.part ── SHA-256 is the wanted one ──> NAME
//!                                              └──> progress ── server ──> GET /progress, /metrics
//! ```
//!
//! A file has its name only once it is whole and checked, so whoever finds the name may use it. What a
//! process leaves behind when it is killed is a part that the next one goes on with.

pub mod fetch;
pub mod file;
pub mod lock;
pub mod pace;
pub mod part;
pub mod progress;
pub mod server;
pub mod source;
pub mod store;
pub mod wanted;

/// What can help after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Another address, checksum or credential is needed.
    Invalid,
    /// The same again, later.
    Transient,
}
