//! The decoder on a device against the CPU's f32 oracle.
//!
//! Without a device each test says what it lacked and passes; `SHOAL_REQUIRE_GPU=1` makes that a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod agreement;
mod backend;
mod draws;
mod drive;
mod greedy;
mod invariance;
mod real_model;
mod refusal;
