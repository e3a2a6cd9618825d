//! The decoder as the scheduler sees it.
#![allow(clippy::expect_used)] // how a test fails

mod drive;
mod formats;
mod golden;
mod invariance;
mod misuse;
mod published;
