//! Engines that keep their state and do no work, for the pods of a test cluster's fake nodes, until Ctrl-C.
//!
//! ```console
//! $ SHOAL_CLUSTER_NODES=0 scripts/cluster.sh up
//! $ scripts/cluster.sh fake-nodes 100
//! $ scripts/cluster.sh exec target/release/examples/engines
//! ```

use anyhow::Result;
use shoal_e2e::kubernetes::engines;

#[tokio::main]
async fn main() -> Result<()> {
    let _engines = engines::start(kube::Client::try_default().await?)?;
    println!("engines answer for every instance's pod on a fake node");
    tokio::signal::ctrl_c().await?;
    Ok(())
}
