//! One large cluster: grown, halved, grown again and deleted, by the operator and by a bare client.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::wait::await_condition,
};
use shoal_crds::ServingCluster;
use shoal_e2e::until;

use crate::{
    Bench, NAMESPACE, PATIENCE,
    bare::{self, Bare},
    is_settled, page,
    pods::Pods,
    serving_cluster,
    usage::Usage,
    verdict,
};

const NAME: &str = "one";
const RATIO: f64 = 1.3;
/// Of the processor time of control plane and operator together, in percent.
const SHARE: f64 = 10.0;

/// Between two steps, not measured: kwok deletes a pod twice and by name alone, and the second time would meet a new pod
/// that has the name of a deleted one.
const PAUSE: Duration = Duration::from_secs(10);

pub(crate) async fn run(bench: &Bench, instances: i32) -> Result<()> {
    let (full, half) = (instances, instances / 2);
    let steps = [(0, full), (full, half), (half, full), (full, 0)];
    println!(
        "one ServingCluster of {full} instances on the fake nodes; beside it a bare client with 16 connections"
    );
    println!("and equal pods, before and after it in the same run (ratio: to the mean of the two)\n");
    let like = warm_up(bench).await?;
    let bare = Bare::new(&like).await?;
    let before = yardstick(&bare, &steps).await?;
    let fleet = Fleet { bench, pods: Pods::follow(&bench.client, NAME), api: bench.api() };
    let mut rows = Vec::new();
    for (from, to) in steps {
        rows.push(fleet.measured(from, to).await.with_context(|| format!("{from} -> {to}"))?);
        tokio::time::sleep(PAUSE).await;
    }
    gone(bench).await?;
    let after = yardstick(&bare, &steps).await?;
    println!(
        "{:<14} {:>9} {:>17} {:>6} {:>11} {:>16} {:>8} {:>11}",
        "instances", "operator", "bare client", "ratio", "≤ 1.3", "operator's CPU", "share", "≤ 10 %"
    );
    for (((from, to), row), (one, other)) in steps.iter().zip(&rows).zip(before.iter().zip(&after)) {
        let mean = (*one + *other) / 2;
        let ratio = row.took.as_secs_f64() / mean.as_secs_f64();
        let (own, whole) = (row.usage.operator(), row.usage.whole());
        let share = 100.0 * own / whole;
        println!(
            "{:<14} {:>7.1} s {:>7.1} and {:>4.1} s {ratio:>6.2} {:>11} {own:>6.2} of {whole:>4.1} s {share:>6.1} % {:>11}",
            format!("{from} -> {to}"),
            row.took.as_secs_f64(),
            one.as_secs_f64(),
            other.as_secs_f64(),
            verdict(ratio, RATIO),
            verdict(share, SHARE),
        );
    }
    for ((from, to), row) in steps.iter().zip(&rows) {
        println!("\n{from} -> {to}: {}", row.detail);
    }
    println!();
    Ok(())
}

/// Seconds of each step.
async fn yardstick(bare: &Bare, steps: &[(i32, i32)]) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for (from, to) in
        steps.iter().map(|(from, to)| (from.unsigned_abs() as usize, to.unsigned_abs() as usize))
    {
        times.push(if to > from { bare.grow(from, to).await? } else { bare.shrink(from, to).await? });
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
}

/// A small cluster first, so that programs and caches are warm; a pod of it.
async fn warm_up(bench: &Bench) -> Result<Pod> {
    let api = bench.api();
    api.create(&PostParams::default(), &serving_cluster("warm", 1, 1)?).await?;
    tokio::time::timeout(PATIENCE, await_condition(api.clone(), "warm", settled)).await??;
    let like = bare::example(&bench.client, "warm").await?;
    api.delete("warm", &DeleteParams::default()).await?;
    gone(bench).await?;
    Ok(like)
}

/// Nothing of earlier steps costs processor time any more.
async fn gone(bench: &Bench) -> Result<()> {
    let pods = Api::<Pod>::namespaced(bench.client.clone(), NAMESPACE);
    until("every pod is gone", PATIENCE, || async {
        let left = pods.list_metadata(&ListParams::default().limit(1)).await?.items.len();
        anyhow::ensure!(left == 0, "some are left");
        Ok(())
    })
    .await
}

fn settled(cluster: Option<&ServingCluster>) -> bool {
    cluster.is_some_and(is_settled)
}

struct Row {
    took: Duration,
    usage: Usage,
    detail: String,
}

struct Fleet<'a> {
    bench: &'a Bench,
    pods: Pods,
    api: Api<ServingCluster>,
}

impl Fleet<'_> {
    async fn measured(&self, from: i32, to: i32) -> Result<Row> {
        let usage = || Usage::now(&self.bench.control_plane, self.bench.operator.pid());
        let (before, said) = (usage()?, page().await?);
        let begun = Instant::now();
        self.change(from, to).await?;
        let took = begun.elapsed();
        let (usage, said) = (usage()?.since(&before), page().await?.since(&said));
        let looks = said.reconciles();
        let detail = format!(
            "{looks} reconciles, {:.1} API calls each; writes: {}\n  processor seconds: {}",
            said.mean("shoal_operator_reconcile_api_calls"),
            said.writes(),
            usage.describe()
        );
        Ok(Row { took, usage, detail })
    }

    /// Asks for so many instances; until they are there and ready, by their pods and by the status.
    async fn change(&self, from: i32, to: i32) -> Result<()> {
        let wanted = serving_cluster(NAME, to / 2, to - to / 2)?;
        match (from, to) {
            (0, _) => {
                self.api.create(&PostParams::default(), &wanted).await?;
            }
            (_, 0) => {
                self.api.delete(NAME, &DeleteParams::default()).await?;
                return self.pods.are(0).await;
            }
            _ => {
                let body = serde_json::json!({ "spec": { "prefill": wanted.spec.prefill, "decode": wanted.spec.decode } });
                self.api.patch(NAME, &PatchParams::default(), &Patch::Merge(body)).await?;
            }
        }
        tokio::time::timeout(PATIENCE, await_condition(self.api.clone(), NAME, settled)).await??;
        self.pods.are(to.unsigned_abs() as usize).await
    }
}

impl Bench {
    pub(crate) fn api(&self) -> Api<ServingCluster> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }
}
