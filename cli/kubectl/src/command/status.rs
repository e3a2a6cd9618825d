//! `kubectl shoal status`: health of fleets, what moves in them and why.

use clap::Args;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use shoal_terminal::{failure::Failure, width};

use super::{Verdict, output::Output};
use crate::{
    cluster::{Connection, Fleet, Scope, Unseen, Wanted, clusters, named},
    view::{FleetView, overview, screen, unseen},
};

/// Clusters looked at together.
const TOGETHER: usize = 4;

const EXAMPLES: &str = "\
Examples:
  kubectl shoal status                     the only cluster of the namespace on one screen, or all of them as a table
  kubectl shoal status chat -n team
  kubectl shoal status -A                  all that you may see
  kubectl shoal status chat -o json | jq '.moving'

States of pods: Pending, Starting, Ready, NotReady, Draining, Stopping, Crashed, NoImage, HeldUp, Ended.
RUNS and WAITS are sequences, KV is the share of pages that they hold, all by the engines' own word.

Exit code 1 when a cluster that is shown is not Ready.";

/// Show health, roles, instances, what is moving and why, conditions, recent events.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// Name of the ServingCluster [default: all of the namespace]
    name: Option<String>,
    /// ServingClusters of all namespaces
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Status {
    pub(crate) async fn run(self, scope: &Scope) -> Result<Verdict, Failure> {
        let connection = scope.connect().await?;
        let found = match &self.name {
            Some(name) => vec![named(&connection, Some(name)).await?],
            None => clusters(&connection, self.all_namespaces).await?,
        };
        let single = self.name.is_some();
        let wanted = Wanted { figures: true, events: true };
        let views: Vec<FleetView> = stream::iter(found)
            .map(|cluster| async {
                let fleet = Fleet::read(&connection, cluster, wanted).await;
                FleetView::from(&fleet)
            })
            .buffered(TOGETHER)
            .collect()
            .await;
        self.print(&views, single, &connection)?;
        Ok(Verdict::fine_if(views.iter().all(|view| view.ready)))
    }

    fn print(&self, views: &[FleetView], single: bool, connection: &Connection) -> Result<(), Failure> {
        let printed = match views {
            [view] if single => self.output.print(view)?,
            views => self.output.print(&views)?,
        };
        if printed {
            return Ok(());
        }
        match views {
            [] if self.all_namespaces => println!("There is no ServingCluster in any namespace."),
            [] => println!("There is no ServingCluster in namespace {}.", connection.namespace),
            [view] if !self.all_namespaces => print!("{}", screen(view, width(), Timestamp::now())),
            views => {
                let table = overview(views, self.all_namespaces, Timestamp::now());
                print!("{}", table.within(width(), &["AGE", "MODEL", "MOVING"]));
                let mut missing = Unseen::default();
                views.iter().flat_map(|view| &view.unseen).for_each(|line| missing.say(line));
                print!("{}", unseen(missing.lines()));
            }
        }
        Ok(())
    }
}
