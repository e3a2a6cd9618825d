//! The operator at scale: one large ServingCluster beside a bare client, and many small ones. Prints each figure
//! with its goal; scripts/bench-operator.sh starts the control plane and the fake nodes that it needs.
//!
//! ```text
//! bare client ──16 connections──> API server <── operator (shoal-operator of this build)
//!       pods of fake nodes: kwok makes them ready; their engines are one process, examples/engines
//! ```

mod bare;
mod many;
mod metrics;
mod one;
mod pods;
mod usage;

use std::{path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::PostParams};
use serde_json::json;
use shoal_crds::ServingCluster;
use shoal_e2e::{Process, http, until};

use metrics::Page;

/// Everything that is made is here.
const NAMESPACE: &str = "bench";
/// In a network namespace of its own nobody else has it.
const LISTEN: &str = "127.0.0.1:18080";
/// Longer than anything here takes on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_mins(30);

struct Bench {
    client: Client,
    /// The control group of etcd, API server, controller manager, scheduler and kwok.
    control_plane: PathBuf,
    logs: tempfile::TempDir,
    operator: Process,
    engines: Process,
}

#[tokio::main]
async fn main() -> Result<()> {
    let instances: i32 = number("INSTANCES", 1000)?;
    let clusters: usize = number("CLUSTERS", 2000)?;
    let quiet = Duration::from_secs(number("QUIET", 600)?);
    let control_plane = std::env::var("SHOAL_CONTROL_PLANE").context("run scripts/bench-operator.sh")?;
    ensure!(instances >= 4, "INSTANCES must be at least 4");

    let client = Client::try_default().await?;
    make_namespace(&client).await?;
    let logs = tempfile::tempdir()?;
    let engines = Process::start("engines", "examples/engines", &[], logs.path())?;
    let operator = start_operator(&logs).await?;
    let mut bench = Bench { client, control_plane: control_plane.into(), logs, operator, engines };
    let outcome = Box::pin(run(&mut bench, instances, clusters, quiet)).await;
    if outcome.is_err() {
        eprintln!("operator:\n{}\nengines:\n{}", bench.operator.log_tail(), bench.engines.log_tail());
    }
    bench.operator.terminate(Duration::from_secs(30)).await?;
    outcome
}

async fn run(bench: &mut Bench, instances: i32, clusters: usize, quiet: Duration) -> Result<()> {
    if instances > 4 {
        Box::pin(one::run(bench, instances)).await?;
    }
    if clusters > 0 {
        Box::pin(many::run(bench, clusters, quiet)).await?;
    }
    Ok(())
}

fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    variable: &str,
    default: T,
) -> Result<T> {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{variable} must be a number")),
        _ => Ok(default),
    }
}

async fn make_namespace(client: &Client) -> Result<()> {
    let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await?;
    let account = Api::<k8s_openapi::api::core::v1::ServiceAccount>::namespaced(client.clone(), NAMESPACE);
    until("the namespace has an account", Duration::from_mins(1), || async {
        account.get("default").await.map(drop).context("none yet")
    })
    .await
}

/// Starts the operator and waits until it leads.
async fn start_operator(logs: &tempfile::TempDir) -> Result<Process> {
    let arguments = ["--engine-image=shoal:bench", "--operator-namespace=kube-system", "--log=warn"];
    let mut arguments: Vec<String> = arguments.map(ToOwned::to_owned).into();
    arguments.push(format!("--listen={LISTEN}"));
    let process = Process::start("operator", "shoal-operator", &arguments, logs.path())?;
    until("the operator leads", Duration::from_mins(2), || async {
        ensure!(page().await?.sum("shoal_operator_leader") > 0.0, "it does not");
        Ok(())
    })
    .await?;
    Ok(process)
}

/// What the operator says of itself.
async fn page() -> Result<Page> {
    let reply = http::get(LISTEN, "/metrics").await?;
    Ok(Page::parse(&String::from_utf8_lossy(&reply.body)))
}

/// A cluster as a user writes it.
fn serving_cluster(name: &str, prefill: i32, decode: i32) -> Result<ServingCluster> {
    let object = json!({
        "apiVersion": "shoal.dev/v1alpha1",
        "kind": "ServingCluster",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "model": { "name": "bench", "source": { "path": "/models/bench.gguf" } },
            "prefill": { "replicas": prefill },
            "decode": { "replicas": decode },
        },
    });
    Ok(serde_json::from_value(object)?)
}

/// Whether everything that is asked for serves and nothing moves any more.
fn is_settled(cluster: &ServingCluster) -> bool {
    cluster.status.as_ref().is_some_and(|status| {
        let (prefill, decode) = (&cluster.spec.prefill, &cluster.spec.decode);
        status.observed_generation == cluster.metadata.generation
            && status.is("Ready")
            && !status.is("Progressing")
            && (status.prefill.ready, status.decode.ready) == (prefill.replicas, decode.replicas)
    })
}

/// A figure beside its goal.
fn verdict(value: f64, goal: f64) -> &'static str {
    if value <= goal { "met" } else { "missed" }
}
