//! The command line. One file per command; each holds its arguments and what it does with them.

mod chat;
mod completion;
mod doctor;
mod events;
mod logs;
mod output;
mod report;
mod status;
mod top;
mod version;

use clap::{Parser, Subcommand};
use shoal_terminal::failure::Failure;

use crate::cluster::Scope;

pub(crate) use logs::main_container;
pub(crate) use version::Versions;

const EXAMPLES: &str = "\
Examples:
  kubectl shoal status                        every ServingCluster of the namespace
  kubectl shoal status chat                   one of them, on one screen
  kubectl shoal chat chat -m 'Why is the sea salt?'
  kubectl shoal top chat                      rates and latencies, live
  kubectl shoal doctor                        what is wrong, and what to do about it
  kubectl shoal report chat -o chat.tar.gz    what a bug report needs, without secrets

Exit codes:
  0  done; what was asked about is as it should be
  1  a problem was found, or something is not ready; a command failed that may work next time
  2  the command line or the kubeconfig is wrong
  3  what was named does not exist, or the API server cannot be reached or does not allow to see it
  130  Ctrl-C";

/// Look at Shoal's fleets in Kubernetes, and talk to them.
///
/// Works with your kubeconfig and your rights. What you may not see is named, with the right that is missing, beside
/// what you may. Nothing is ever written, and no Secret is read.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-shoal",
    bin_name = "kubectl shoal",
    version,
    after_help = EXAMPLES,
    max_term_width = 100
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    scope: Scope,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Status),
    Top(top::Top),
    Chat(chat::Chat),
    Logs(logs::Logs),
    Events(events::Events),
    Doctor(doctor::Doctor),
    Report(report::Report),
    Version(version::Version),
    Completion(completion::Completion),
    #[command(name = "__complete", hide = true)]
    Complete(completion::Complete),
}

/// What a command that looked has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    Problem,
}

impl Verdict {
    pub(crate) fn fine_if(fine: bool) -> Self {
        if fine { Self::Fine } else { Self::Problem }
    }
}

impl Arguments {
    pub(crate) async fn run(self) -> Result<Verdict, Failure> {
        let scope = &self.scope;
        match self.command {
            Command::Status(status) => status.run(scope).await,
            Command::Top(top) => top.run(scope).await,
            Command::Chat(chat) => chat.run(scope).await,
            Command::Logs(logs) => logs.run(scope).await,
            Command::Events(events) => events.run(scope).await,
            Command::Doctor(doctor) => Box::pin(doctor.run(scope)).await,
            Command::Report(report) => Box::pin(report.run(scope)).await,
            Command::Version(version) => version.run(scope).await,
            Command::Completion(completion) => completion.run(),
            Command::Complete(complete) => complete.run(scope).await,
        }
    }
}
