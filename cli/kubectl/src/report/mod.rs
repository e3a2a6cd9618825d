//! An archive of everything that can be seen of a fleet, without what must not leave the cluster.

mod archive;
mod collect;
mod redact;

pub(crate) use archive::Archive;
pub(crate) use collect::{Limits, collect};
