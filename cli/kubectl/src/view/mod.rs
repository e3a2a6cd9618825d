//! From objects to what is shown. Pure: the time is an argument.

mod event;
mod fleet;
mod pod;
mod screen;
mod time;
mod top;

pub(crate) use event::{EventView, event_time, events_table};
pub(crate) use fleet::FleetView;
pub(crate) use pod::PodView;
pub(crate) use screen::{overview, screen, unseen};
pub(crate) use time::at;
pub(crate) use top::{Top, top_table};

#[cfg(test)]
pub(crate) mod fixtures;
