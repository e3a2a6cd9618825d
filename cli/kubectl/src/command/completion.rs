//! Shell completion: of this program, and as kubectl asks plugins for it.

use std::{collections::BTreeSet, time::Duration};

use clap::{Args, Command, CommandFactory as _, Parser as _, ValueEnum};
use kube::ResourceExt as _;
use shoal_terminal::failure::Failure;

use super::{Arguments, Verdict};
use crate::cluster::{Scope, clusters};

const EXAMPLES: &str = "\
Examples:
  kubectl shoal completion kubectl > ~/bin/kubectl_complete-shoal && chmod +x ~/bin/kubectl_complete-shoal
      completes `kubectl shoal <TAB>` in every shell that completes kubectl
  kubectl shoal completion bash > /etc/bash_completion.d/kubectl-shoal
      completes `kubectl-shoal <TAB>`, without kubectl";

/// kubectl runs the program of this name on PATH with what was typed so far.
const FOR_KUBECTL: &str = "#!/bin/sh\nexec kubectl-shoal __complete -- \"$@\"\n";
/// To kubectl: these are all, and files are none of them.
const NO_FILES: &str = ":4";
/// A shell that waits for Tab does not wait long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Print a completion script.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completion {
    /// For whom
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    /// The program kubectl_complete-shoal, which kubectl looks for on PATH
    Kubectl,
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    #[allow(clippy::unnecessary_wraps, reason = "every command ends like this")]
    pub(crate) fn run(self) -> Result<Verdict, Failure> {
        let shell = match self.shell {
            Shell::Kubectl => {
                print!("{FOR_KUBECTL}");
                return Ok(Verdict::Fine);
            }
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        let mut command = Arguments::command().bin_name("kubectl-shoal");
        clap_complete::generate(shell, &mut command, "kubectl-shoal", &mut std::io::stdout());
        Ok(Verdict::Fine)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Complete {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

impl Complete {
    pub(crate) async fn run(self, scope: &Scope) -> Result<Verdict, Failure> {
        let (last, before) = self.words.split_last().map_or(("", &[][..]), |(last, before)| (last, before));
        for candidate in candidates(before, last, scope).await {
            println!("{candidate}");
        }
        println!("{NO_FILES}");
        Ok(Verdict::Fine)
    }
}

async fn candidates(before: &[String], last: &str, scope: &Scope) -> BTreeSet<String> {
    let root = Arguments::command();
    let chosen = before.iter().find_map(|word| root.find_subcommand(word));
    let found = match chosen {
        _ if last.starts_with('-') => flags(chosen.unwrap_or(&root), &root),
        None => root
            .get_subcommands()
            .filter(|one| !one.is_hide_set())
            .map(|one| one.get_name().to_owned())
            .collect(),
        Some(command) if takes_cluster(command) => {
            names(&typed(before).unwrap_or_else(|| scope.clone())).await
        }
        Some(command) => values(command),
    };
    found.into_iter().filter(|candidate| candidate.starts_with(last)).collect()
}

/// Namespace and context, if they were typed already.
fn typed(before: &[String]) -> Option<Scope> {
    let words = std::iter::once("kubectl-shoal").chain(before.iter().map(String::as_str));
    Arguments::try_parse_from(words).ok().map(|arguments| arguments.scope)
}

fn flags(command: &Command, root: &Command) -> BTreeSet<String> {
    let global = root.get_arguments().filter(|argument| argument.is_global_set());
    let all = command.get_arguments().chain(global);
    all.filter_map(|argument| argument.get_long()).map(|long| format!("--{long}")).collect()
}

fn takes_cluster(command: &Command) -> bool {
    command.get_positionals().any(|argument| argument.get_id() == "name")
}

fn values(command: &Command) -> BTreeSet<String> {
    let values = command.get_positionals().flat_map(clap::Arg::get_possible_values);
    values.map(|value| value.get_name().to_owned()).collect()
}

async fn names(scope: &Scope) -> BTreeSet<String> {
    let found = async { clusters(&scope.connect().await?, false).await };
    let found = tokio::time::timeout(PATIENCE, found).await;
    found.into_iter().flatten().flatten().map(|cluster| cluster.name_any()).collect()
}
