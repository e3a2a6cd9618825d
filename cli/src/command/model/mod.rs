//! `shoal model`: model files on this machine.

mod fetch;
mod known;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    failure::{Attempt, Failure},
    present::Table,
};

const EXAMPLES: &str = "\
Examples:
  shoal model pull smollm2
  shoal model list";

/// Fetch and list model files.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Model {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch a model into the cache and print its path; done before, it only prints
    #[command(after_help = known::help())]
    Pull {
        /// Name of a known model
        name: String,
    },
    /// List the models in the cache
    List,
}

impl Model {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Pull { name } => {
                println!("{}", fetch::pull(known::find(&name)?, &cache()?)?.display());
                Ok(())
            }
            Command::List => list(),
        }
    }
}

/// `${XDG_CACHE_HOME:-~/.cache}/shoal/models`.
fn cache() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("shoal/models"))
        .ok_or_else(|| Failure::invalid("neither XDG_CACHE_HOME nor HOME is set"))
}

fn list() -> Result<(), Failure> {
    let folder = cache()?;
    let mut table = Table::new(&["MODEL", "MIB", "PATH"]);
    let mut entries: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in
        entries.iter().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "gguf"))
    {
        let length = entry.metadata().attempt(|| format!("cannot read {}", entry.path().display()))?.len();
        let file = entry.file_name().to_string_lossy().into_owned();
        table.row(vec![
            known::name_of(&file).to_owned(),
            (length >> 20).to_string(),
            entry.path().display().to_string(),
        ]);
    }
    print!("{table}");
    Ok(())
}
