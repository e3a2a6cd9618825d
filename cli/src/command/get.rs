//! `shoal get`: fleets, as a table or as data.

use clap::{Args, ValueEnum};
use shoal_crds::ServingCluster;

use super::State;
use crate::{
    failure::{Attempt, Failure},
    present::fleet,
};

const EXAMPLES: &str = "\
Examples:
  shoal get
  shoal get chat -o wide
  shoal get chat -o json | jq -r .status.endpoint";

/// List fleets, or show one.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Get {
    /// Name of the cluster [default: all]
    name: Option<String>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Json,
    Yaml,
}

impl Get {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let state = self.state.open()?;
        let dirs = match &self.name {
            Some(name) => vec![state.find(Some(name))?],
            None => state.clusters()?,
        };
        let mut clusters = Vec::new();
        for dir in &dirs {
            clusters.extend(fleet::load(dir)?);
        }
        match self.output {
            Output::Table | Output::Wide if clusters.is_empty() => {
                println!("No cluster is known here; start one with: shoal up -f cluster.yaml");
            }
            Output::Table | Output::Wide => {
                print!("{}", fleet::clusters(&clusters, self.output == Output::Wide));
            }
            Output::Json => println!("{}", json(&clusters, self.name.is_some())?),
            Output::Yaml => print!("{}", yaml(&clusters)?),
        }
        Ok(())
    }
}

/// One object if one was named, else a list.
fn json(clusters: &[ServingCluster], single: bool) -> Result<String, Failure> {
    let text = match clusters {
        [cluster] if single => serde_json::to_string_pretty(cluster),
        clusters => serde_json::to_string_pretty(&serde_json::json!({
            "apiVersion": shoal_crds::API_VERSION, "kind": "ServingClusterList", "items": clusters,
        })),
    };
    text.attempt(|| "cannot write JSON".to_owned())
}

/// Documents one after another, each of which `apply` takes.
fn yaml(clusters: &[ServingCluster]) -> Result<String, Failure> {
    let texts: Result<Vec<String>, Failure> = clusters
        .iter()
        .map(|cluster| shoal_crds::write(cluster).attempt(|| "cannot write YAML".to_owned()))
        .collect();
    Ok(texts?.join("---\n"))
}
