//! The operator against a real API server.

pub mod engines;
