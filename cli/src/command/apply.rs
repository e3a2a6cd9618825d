//! `shoal apply`: changes what is asked for.

use std::path::PathBuf;

use clap::Args;

use super::{State, manifest};
use crate::{failure::Failure, local::Lock};

const EXAMPLES: &str = "\
Examples:
  shoal apply -f cluster.yaml
  shoal get chat -o yaml | sed 's/replicas: 1/replicas: 2/' | shoal apply -f -";

/// Change a fleet: a running `shoal up` follows at once.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Apply {
    /// Manifest of a `ServingCluster`; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    state: State,
}

impl Apply {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let cluster = manifest::read(&self.file)?;
        let name = cluster.metadata.name.clone().unwrap_or_default();
        let dir = self.state.open()?.cluster(&name);
        let new = dir.spec()?.is_none();
        let changed = dir.store(cluster)?;
        let word = match (new, changed) {
            (true, _) => "created",
            (false, true) => "configured",
            (false, false) => "unchanged",
        };
        println!("servingcluster.shoal.dev/{name} {word}");
        if !Lock::is_held(&dir) {
            println!("No `shoal up` runs for it; start it with: shoal up -f {}", self.file.display());
        }
        Ok(())
    }
}
