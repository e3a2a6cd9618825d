//! Where the engine and the gateway are: named by the environment, or beside this program.

use std::path::PathBuf;

use crate::failure::{Attempt, Failure};

#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) engine: PathBuf,
    pub(crate) gateway: PathBuf,
}

impl Programs {
    pub(crate) fn find() -> Result<Self, Failure> {
        Ok(Self {
            engine: find("SHOAL_ENGINE", "shoal-engine")?,
            gateway: find("SHOAL_GATEWAY", "shoal-gateway")?,
        })
    }
}

fn find(variable: &str, name: &str) -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os(variable).map(PathBuf::from) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Failure::invalid(format!("{variable} names {}, which is no file", path.display())))
        };
    }
    let own = std::env::current_exe().attempt(|| "cannot find this program".to_owned())?;
    let beside = own.with_file_name(name);
    if beside.is_file() {
        return Ok(beside);
    }
    Err(Failure::not_found(format!(
        "{} is missing; put it there or set {variable} to its path",
        beside.display()
    )))
}
