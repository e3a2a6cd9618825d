//! `shoal describe`: one fleet with everything that is known of it.

use clap::Args;
use shoal_crds::ServingCluster;

use super::State;
use crate::{
    failure::Failure,
    present::{Table, fleet},
};

/// Show one fleet: spec, conditions with their reasons, processes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  shoal describe\n  shoal describe chat")]
pub(crate) struct Describe {
    /// Name of the cluster [default: the only one]
    name: Option<String>,
    #[command(flatten)]
    state: State,
}

impl Describe {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let dir = self.state.open()?.find(self.name.as_deref())?;
        let Some(cluster) = fleet::load(&dir)? else { return Ok(()) };
        println!("{}", facts(&cluster));
        println!("{}", conditions(&cluster));
        let mut records = dir.gateway_record()?.into_iter().collect::<Vec<_>>();
        records.extend(dir.records()?);
        print!("{}", fleet::processes(&records));
        for record in &records {
            if let Some(crash) = &record.life.crashed {
                println!(
                    "\n{} crashed: {}\n  log: {}",
                    record.name,
                    crash.exit,
                    dir.log_path(&record.name).display()
                );
            }
        }
        Ok(())
    }
}

fn facts(cluster: &ServingCluster) -> Table {
    let (spec, status) = (&cluster.spec, cluster.status.clone().unwrap_or_default());
    let automatic =
        |value: Option<i32>| value.map_or_else(|| "automatic".to_owned(), |value| value.to_string());
    let mut table = Table::new(&["Name:", cluster.metadata.name.as_deref().unwrap_or_default()]);
    let observed = status.observed_generation.unwrap_or_default();
    let rows = [
        ("Generation:", format!("{} (observed {observed})", cluster.metadata.generation.unwrap_or_default())),
        ("Endpoint:", status.endpoint.unwrap_or_else(|| "-".to_owned())),
        ("Model:", format!("{} from {}", spec.model.name, spec.model.source.path)),
        ("Prefill:", format!("{} ready", status.prefill.summary)),
        ("Decode:", format!("{} ready", status.decode.summary)),
        ("KV memory:", format!("{} per instance", spec.engine.kv_memory)),
        (
            "Batch:",
            format!("{} sequences, {} prompt tokens in a step", spec.engine.max_batch, spec.engine.chunk),
        ),
        ("Threads:", automatic(spec.engine.threads)),
        ("Context:", automatic(spec.engine.max_context)),
    ];
    for (name, value) in rows {
        table.row(vec![name.to_owned(), value]);
    }
    table
}

fn conditions(cluster: &ServingCluster) -> Table {
    let mut table = Table::new(&["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"]);
    for found in cluster.status.iter().flat_map(|status| &status.conditions) {
        table.row(vec![
            found.type_.clone(),
            found.status.clone(),
            found.reason.clone(),
            found.last_transition_time.0.to_string(),
            found.message.clone(),
        ]);
    }
    table
}
