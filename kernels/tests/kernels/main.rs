//! Every kernel on a device against its f64 reference.
//!
//! Without a device each test says what it lacked and passes; `SHOAL_REQUIRE_GPU=1` makes that a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod activation;
mod advance;
mod argmax;
mod attention;
mod cache;
mod chain;
mod device;
mod draw;
mod embedding;
mod gemm;
mod norm;
mod refusal;
mod rope;
mod skinny;
