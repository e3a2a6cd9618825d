//! What people see: tables, colours on a terminal only, the live view while a fleet starts.

pub(crate) mod fleet;
pub(crate) mod live;
pub(crate) mod style;
mod table;
mod time;

pub(crate) use table::Table;
pub(crate) use time::age;
