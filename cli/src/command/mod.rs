//! The command line. One file per command; each holds its arguments and what it does with them.

mod apply;
mod bench;
mod chat;
mod delete;
mod describe;
mod get;
mod logs;
mod manifest;
mod model;
mod target;
mod up;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{failure::Failure, local::StateDir};

const EXAMPLES: &str = "\
Examples:
  shoal model pull smollm2              fetch the small test model, print its path
  shoal up -f cluster.yaml              start a fleet in the foreground, state its endpoint
  shoal get                             fleets, from a second terminal
  shoal chat -m 'Why is the sea salt?'  ask it something
  shoal apply -f cluster.yaml           change the running fleet
  shoal bench --concurrency 8           measure it

Exit codes:
  0  done
  1  failed, may work next time
  2  the command line or the manifest is wrong
  3  what was named does not exist
  4  something else holds what is needed: another `shoal up`, a port
  130  a second Ctrl-C ended it at once";

/// Serve a language model with prefill and decode apart, on this machine.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Apply(apply::Apply),
    Get(get::Get),
    Describe(describe::Describe),
    Delete(delete::Delete),
    Logs(logs::Logs),
    Chat(chat::Chat),
    Bench(bench::Bench),
    Model(model::Model),
}

impl Arguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Up(up) => up.run().await,
            Command::Apply(apply) => apply.run(),
            Command::Get(get) => get.run(),
            Command::Describe(describe) => describe.run(),
            Command::Delete(delete) => delete.run().await,
            Command::Logs(logs) => logs.run().await,
            Command::Chat(chat) => chat.run().await,
            Command::Bench(bench) => bench.run().await,
            Command::Model(model) => model.run(),
        }
    }
}

/// Where fleets of this machine are kept.
#[derive(Debug, Clone, Args)]
struct State {
    /// Directory that plays the part of the API server [default: `${XDG_STATE_HOME:-~/.local/state}/shoal`]
    #[arg(long, value_name = "DIR", env = "SHOAL_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

impl State {
    fn open(&self) -> Result<StateDir, Failure> {
        StateDir::open(self.state_dir.as_deref())
    }
}
