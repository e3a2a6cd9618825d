//! From a row of logits to a token.

mod params;

pub use params::{SamplingError, SamplingLimits, sampling};
