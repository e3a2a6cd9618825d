//! Whole instances over loopback, with a tiny synthetic model: what a gateway or a peer would see.
#![allow(clippy::expect_used, clippy::panic, reason = "everything here is a test or its support")]

mod control;
mod disaggregated;
mod ends;
mod faults;
mod fleet;
mod gpu;
mod hostile;
mod local;
mod process;
mod proxy;
mod watching;
