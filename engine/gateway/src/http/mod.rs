//! HTTP: one file per dialect; around them limits, authentication, errors and the server itself.

pub mod body;
pub mod error;
pub mod fields;
pub mod keys;
mod patience;
pub mod server;
