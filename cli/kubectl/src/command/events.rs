//! `kubectl shoal events`: what happened to a fleet and to what it is made of.

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use shoal_crds::ServingCluster;
use shoal_terminal::{failure::Failure, width};

use super::{Verdict, output::Output};
use crate::{
    cluster::{self, Connection, Scope, Unseen, clusters, named},
    view::{EventView, events_table, unseen},
};

const EXAMPLES: &str = "\
Examples:
  kubectl shoal events chat
  kubectl shoal events chat -w             and those to come, until Ctrl-C
  kubectl shoal events -A --types Warning

Events of the ServingCluster, its pods (also of those that are gone), Deployment, Services and so on, by time.
The API server forgets events after an hour unless it is told otherwise.";

/// Show events of a fleet and of everything it is made of, by time.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Events {
    /// Name of the ServingCluster [default: all of the namespace]
    name: Option<String>,
    /// ServingClusters of all namespaces
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    /// Go on with events that come, until Ctrl-C; with -o one document each
    #[arg(short, long)]
    watch: bool,
    /// Only these types: Normal, Warning
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = ["Normal", "Warning"])]
    types: Vec<String>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Events {
    pub(crate) async fn run(self, scope: &Scope) -> Result<Verdict, Failure> {
        let connection = scope.connect().await?;
        let clusters = match &self.name {
            Some(name) => vec![named(&connection, Some(name)).await?],
            None => clusters(&connection, self.all_namespaces).await?,
        };
        let mut missing = Unseen::default();
        let mut events = self.past(&connection, &clusters, &mut missing).await;
        events.sort_by_key(|event| event.last_seen);
        let printed = !(self.watch && events.is_empty()) && self.output.print(&events)?;
        if !printed {
            let table = events_table(&events, self.all_namespaces, Timestamp::now());
            if table.is_empty() && !self.watch {
                println!("No events are kept.");
            } else {
                print!("{}", table.within(width(), &["TYPE", "REASON"]));
            }
            print!("{}", unseen(missing.lines()));
        }
        if !missing.lines().is_empty() {
            return Err(Failure::not_found("not all events could be seen"));
        }
        if self.watch {
            self.follow(&connection, &clusters, events.last().map(|event| event.last_seen)).await?;
        }
        Ok(Verdict::Fine)
    }

    async fn past(
        &self,
        connection: &Connection,
        clusters: &[ServingCluster],
        missing: &mut Unseen,
    ) -> Vec<EventView> {
        let mut found = Vec::new();
        for one in clusters {
            let namespace = one.namespace().unwrap_or_default();
            let api: Api<Event> = Api::namespaced(connection.client.clone(), &namespace);
            let events = cluster::events(&api, &namespace, &one.name_any(), missing).await;
            found.extend(events.iter().map(EventView::from).filter(|event| self.wants(event)));
        }
        found
    }

    fn wants(&self, event: &EventView) -> bool {
        self.types.is_empty() || self.types.contains(&event.kind)
    }

    /// Prints what comes after the time of the last one that was shown.
    async fn follow(
        &self,
        connection: &Connection,
        clusters: &[ServingCluster],
        shown: Option<Timestamp>,
    ) -> Result<(), Failure> {
        let client = connection.client.clone();
        let api: Api<Event> = if self.all_namespaces {
            Api::all(client)
        } else {
            Api::namespaced(client, &connection.namespace)
        };
        let mut coming = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
        loop {
            let event = match coming.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(error) => {
                    eprintln!("the watch broke off and is opened again: {error}");
                    continue;
                }
            };
            let about = |one: &ServingCluster| {
                one.namespace() == event.metadata.namespace
                    && cluster::concerns(&event.involved_object, &one.name_any())
            };
            let view = EventView::from(&event);
            if shown.is_some_and(|shown| view.last_seen <= shown)
                || !self.wants(&view)
                || !clusters.iter().any(about)
            {
                continue;
            }
            if !self.output.print(&view)? {
                println!(
                    "{:.0}  {}  {}  {}  {}",
                    view.last_seen, view.kind, view.reason, view.object, view.message
                );
            }
        }
    }
}
