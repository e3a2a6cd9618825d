//! `kubectl shoal top`: rates and latencies, live.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use clap::Args;
use jiff::Timestamp;
use kube::ResourceExt as _;
use shoal_crds::ServingCluster;
use shoal_terminal::{failure::Failure, style, width};

use super::{Verdict, output::Output};
use crate::{
    cluster::{Connection, Exposition, Fleet, Scope, Wanted, clusters, named},
    view::{self, PodView, top_table, unseen},
};

const EXAMPLES: &str = "\
Examples:
  kubectl shoal top chat                   refreshes until Ctrl-C
  kubectl shoal top chat --once --interval 10
  kubectl shoal top -A --once -o json

TTFT p50, p95  time to first token: of an instance from its own call on, in the last line as clients see it
ITL            time between two tokens: of an instance its batch by its decode rate, in the last line as clients see it
IN/s, OUT/s    prompt tokens admitted and tokens produced per second
RUNS, WAITS    sequences in the batch and before it; QUEUED: prompt tokens still to compute
KV             share of pages that running sequences hold
GB/s           KV pages sent or received

Rates are measured between two looks, --interval apart; what nothing happened for is -.
Needs the right to get pods/proxy.";

/// Show time to first token, tokens per second, queues, KV use and transfer of every instance.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Top {
    /// Name of the ServingCluster [default: all of the namespace]
    name: Option<String>,
    /// ServingClusters of all namespaces
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    /// Seconds between two looks, 1 to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=300))]
    interval: u64,
    /// Look twice, print once, and end
    #[arg(long)]
    once: bool,
    /// Form of the output; without --once one document after the other
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Figures of the pods of a cluster, at a time.
struct Look {
    at: Instant,
    figures: BTreeMap<String, Exposition>,
    roles: BTreeMap<String, String>,
    unseen: Vec<String>,
}

impl Top {
    pub(crate) async fn run(self, scope: &Scope) -> Result<Verdict, Failure> {
        let connection = scope.connect().await?;
        let clusters = match &self.name {
            Some(name) => vec![named(&connection, Some(name)).await?],
            None => clusters(&connection, self.all_namespaces).await?,
        };
        if clusters.is_empty() {
            return Err(Failure::not_found("there is no ServingCluster here"));
        }
        let mut before = looks(&connection, &clusters).await;
        loop {
            tokio::time::sleep(Duration::from_secs(self.interval)).await;
            let now = looks(&connection, &clusters).await;
            let tops: Vec<view::Top> = clusters
                .iter()
                .zip(before.iter().zip(&now))
                .map(|(one, looks)| compare(one, looks))
                .collect();
            self.show(&tops)?;
            if self.once {
                return Ok(Verdict::fine_if(tops.iter().all(|top| !top.instances.is_empty())));
            }
            before = now;
        }
    }

    fn show(&self, tops: &[view::Top]) -> Result<(), Failure> {
        let printed = match tops {
            [top] if self.name.is_some() => self.output.print(top)?,
            tops => self.output.print(&tops)?,
        };
        if printed {
            return Ok(());
        }
        if !self.once && std::io::stdout().is_terminal() {
            print!("\x1b[H\x1b[2J");
        }
        for top in tops {
            let title = format!("{}  namespace {}", style::bold(&top.name), top.namespace);
            println!("{title}  {}", style::dim(&format!("{:.0}", Timestamp::now())));
            let expendable = ["QUEUED", "IN/s", "WAITS", "p95", "ROLE"];
            print!("{}", top_table(top).within(width(), &expendable));
            println!("{}", unseen(&top.unseen));
        }
        let _ = std::io::stdout().flush();
        Ok(())
    }
}

async fn looks(connection: &Connection, clusters: &[ServingCluster]) -> Vec<Look> {
    let look = |cluster: &ServingCluster| {
        let cluster = cluster.clone();
        async move {
            let fleet = Fleet::read(connection, cluster, Wanted { figures: true, events: false }).await;
            let role = |pod| (PodView::of(pod, None).pod, PodView::of(pod, None).role);
            Look {
                at: Instant::now(),
                roles: fleet.pods.iter().map(role).collect(),
                unseen: fleet.unseen.lines().to_vec(),
                figures: fleet.figures,
            }
        }
    };
    futures::future::join_all(clusters.iter().map(look)).await
}

fn compare(cluster: &ServingCluster, (before, now): (&Look, &Look)) -> view::Top {
    let between = now.at.duration_since(before.at);
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let figures = (&before.figures, &now.figures);
    let mut top = view::Top::of((&namespace, &name), &now.roles, figures, between);
    top.unseen.clone_from(&now.unseen);
    top
}
