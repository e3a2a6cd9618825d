//! The gateway against engines that follow a script: real HTTP on one side, real gRPC on the other.

// All of this is test code, helpers included: what goes wrong in it fails the test.
#![allow(clippy::expect_used, clippy::panic)]

mod answers;
mod failures;
mod fake;
mod limits;
mod world;
