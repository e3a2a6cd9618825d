//! The decoder as the scheduler sees it.
#![allow(clippy::expect_used, reason = "functions of a test beside its #[test] are tests too")]

mod drive;
mod formats;
mod golden;
mod invariance;
mod misuse;
mod published;
