//! What `shoal` and `kubectl-shoal` share, so that both look and behave alike.
//!
//! ```text
//! http/         client of the OpenAI API: JSON in, JSON or a stream of events out
//! conversation  messages in, answers streamed to the terminal, whatever the way to the server
//! table, style  columns that fit the terminal, colours
//! failure       what went wrong, and the exit code that says so
//! ```

pub mod conversation;
pub mod failure;
pub mod http;
pub mod style;
mod table;
mod time;

pub use table::{Table, width};
pub use time::age;
