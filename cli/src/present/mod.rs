//! What people see: tables, colours on a terminal only, the live view while a fleet starts.

pub(crate) mod fleet;
pub(crate) mod live;

pub(crate) use shoal_terminal::{Table, age, style};
