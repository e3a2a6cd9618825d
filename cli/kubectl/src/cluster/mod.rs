//! What is read of a cluster, with the rights of whoever asks.

mod connection;
mod events;
mod exposition;
mod fleet;
mod pages;
mod proxy;
mod unseen;

pub(crate) use connection::{Connection, Scope};
pub(crate) use events::{concerns, events};
pub(crate) use exposition::{Exposition, Histogram};
pub(crate) use fleet::{Fleet, Wanted, clusters, component, named};
pub(crate) use pages::pages;
pub(crate) use proxy::{Gateway, engine_metrics, gateway_metrics};
pub(crate) use unseen::{Unseen, words};
