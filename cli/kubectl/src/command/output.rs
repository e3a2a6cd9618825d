//! `-o`: a table for people, or data.

use clap::ValueEnum;
use serde::Serialize;
use shoal_terminal::failure::{Attempt as _, Failure};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
    Yaml,
}

impl Output {
    /// Prints data; false if a table was asked for, which is then up to the caller.
    pub(super) fn print(self, data: &impl Serialize) -> Result<bool, Failure> {
        match self {
            Self::Table => return Ok(false),
            Self::Json => {
                println!(
                    "{}",
                    serde_json::to_string_pretty(data).attempt(|| "cannot write JSON".to_owned())?
                );
            }
            Self::Yaml => print!("{}", yaml(data)?),
        }
        Ok(true)
    }
}

pub(super) fn yaml(data: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(data).attempt(|| "cannot write YAML".to_owned())
}
