//! `shoal delete`: a fleet and everything kept of it.

use std::time::{Duration, Instant};

use clap::Args;
use shoal_crds::time_from_unix;

use super::State;
use crate::{
    failure::Failure,
    local::{ClusterDir, Lock, end_now, now},
};

/// A gateway may finish its streams before it ends.
const PATIENCE: Duration = Duration::from_secs(90);
const PERIOD: Duration = Duration::from_millis(50);

/// Stop a fleet and forget it: its `shoal up` ends, its spec and logs are removed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  shoal delete chat")]
pub(crate) struct Delete {
    /// Name of the cluster
    name: String,
    #[command(flatten)]
    state: State,
}

impl Delete {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let dir = self.state.open()?.find(Some(&self.name))?;
        if Lock::is_held(&dir) {
            ask(&dir).await?;
        } else {
            let _lock = Lock::take(&dir)?;
            end_leftovers(&dir)?;
            dir.remove()?;
        }
        println!("servingcluster.shoal.dev/{} deleted", self.name);
        Ok(())
    }
}

/// Marks the spec and waits until the `shoal up` that has the cluster removed it.
async fn ask(dir: &ClusterDir) -> Result<(), Failure> {
    let Some(mut cluster) = dir.spec()? else { return Ok(()) };
    cluster.metadata.deletion_timestamp = Some(time_from_unix(now().as_second()));
    dir.write_spec(&cluster)?;
    let begun = Instant::now();
    while dir.path.exists() {
        if begun.elapsed() > PATIENCE {
            return Err(Failure::failed(format!(
                "{} still goes down after {} s",
                dir.name,
                PATIENCE.as_secs()
            )));
        }
        tokio::time::sleep(PERIOD).await;
    }
    Ok(())
}

/// Ends processes that outlived their `shoal up`.
fn end_leftovers(dir: &ClusterDir) -> Result<(), Failure> {
    for record in dir.records()?.iter().chain(&dir.gateway_record()?) {
        if let Some(identity) = &record.life.process {
            end_now(identity);
        }
    }
    Ok(())
}
