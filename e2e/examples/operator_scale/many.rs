//! Many small clusters: made, changed, left alone; and the operator restarted under them.

use std::{
    collections::HashMap,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    api::{Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use serde_json::json;
use shoal_crds::ServingCluster;
use shoal_e2e::until;
use tokio::sync::watch;

use crate::{Bench, PATIENCE, is_settled, metrics::Page, page, serving_cluster, start_operator, verdict};

const SECONDS: &str = "shoal_operator_reconcile_duration_seconds";
const CALLS: &str = "shoal_operator_reconcile_api_calls";
const WRITES: &str = "shoal_operator_writes_total";
const P99: f64 = 0.1;
const MEMORY_MIB: f64 = 200.0;
const STEADY: f64 = 30.0;
/// Calls on their way at once, of this program.
const AT_ONCE: usize = 16;
/// One in so many clusters is changed while the others rest.
const CHANGED: usize = 20;

pub(crate) async fn run(bench: &mut Bench, clusters: usize, quiet: Duration) -> Result<()> {
    println!("{clusters} ServingClusters of 3 instances and 2 gateways each\n");
    let seen = follow(bench);
    let (before, begun) = (page().await?, Instant::now());
    let api = bench.api();
    let params = PostParams::default();
    each(0..clusters, async |number| {
        api.create(&params, &serving_cluster(&name(number), 1, 2)?).await.map(drop).map_err(Into::into)
    })
    .await?;
    all(&seen, clusters, 0).await?;
    println!(
        "made                 {:.0} s until all are ready and nothing moves",
        begun.elapsed().as_secs_f64()
    );
    tell("while they are made", &page().await?.since(&before));
    memory(bench)?;

    let before = page().await?;
    for (round, decode) in [3, 2].into_iter().enumerate() {
        let body = Patch::Merge(json!({ "spec": { "decode": { "replicas": decode } } }));
        let chosen = (0..clusters).step_by(CHANGED);
        each(chosen, async |number| {
            api.patch(&name(number), &PatchParams::default(), &body).await.map(drop).map_err(Into::into)
        })
        .await?;
        all(&seen, clusters, (round + 1) * clusters.div_ceil(CHANGED)).await?;
    }
    let changed = page().await?.since(&before);
    tell(&format!("while one in {CHANGED} grows and shrinks by one"), &changed);
    goal_p99(&changed);

    restart(bench, clusters).await?;
    memory(bench)?;

    let before = page().await?;
    tokio::time::sleep(quiet).await;
    let rested = page().await?.since(&before);
    let rest = format!("over {} s in which nothing happens", quiet.as_secs());
    tell(&rest, &rested);
    goal_p99(&rested);
    let writes = rested.sum(WRITES);
    println!("writes at rest       {writes} {rest}; goal 0: {}", verdict(writes, 0.0));
    memory(bench)
}

/// Ends the operator and starts it again, until it has looked at every cluster and nothing waits.
async fn restart(bench: &mut Bench, clusters: usize) -> Result<()> {
    // What follows a change may come after the status by which it was waited for.
    until("the operator writes nothing any more", PATIENCE, || async {
        let before = page().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let writes = page().await?.since(&before).sum(WRITES);
        ensure!(writes <= 0.0, "{writes} within 2 s");
        Ok(())
    })
    .await?;
    bench.operator.terminate(Duration::from_mins(1)).await?;
    let begun = Instant::now();
    bench.operator = start_operator(&bench.logs).await?;
    until("the operator has looked at every cluster", PATIENCE, || async {
        let page = page().await?;
        let (looks, waiting) = (page.reconciles(), page.sum("shoal_operator_queue_depth"));
        ensure!(looks >= clusters as f64 && waiting == 0.0, "{looks} looks, {waiting} waiting");
        Ok(())
    })
    .await?;
    let (took, page) = (begun.elapsed().as_secs_f64(), page().await?);
    println!("restart to steady    {took:.1} s; goal ≤ {STEADY} s: {}", verdict(took, STEADY));
    let writes = page.sum(WRITES);
    println!("writes by a restart  {writes} {}; goal 0: {}", page.writes(), verdict(writes, 0.0));
    tell("since the restart", &page);
    Ok(())
}

fn tell(when: &str, page: &Page) {
    println!(
        "reconciles           {} {when}: p50 ≤ {} ms, p99 ≤ {} ms; API calls: mean {:.2}, p99 ≤ {}, most ≤ {}; {:.2} writes each ({})",
        page.reconciles(),
        1000.0 * page.quantile(SECONDS, 0.5),
        1000.0 * page.quantile(SECONDS, 0.99),
        page.mean(CALLS),
        page.quantile(CALLS, 0.99),
        page.quantile(CALLS, 1.0),
        page.sum(WRITES) / page.reconciles().max(1.0),
        page.writes(),
    );
}

fn goal_p99(page: &Page) {
    let p99 = page.quantile(SECONDS, 0.99);
    println!("  p99 of a reconcile: goal ≤ 100 ms: {}", verdict(p99, P99));
}

fn memory(bench: &Bench) -> Result<()> {
    let resident = bench.operator.resident_bytes()? as f64 / f64::from(1 << 20);
    println!(
        "operator's memory    {resident:.0} MiB resident; goal ≤ {MEMORY_MIB} MiB: {}",
        verdict(resident, MEMORY_MIB)
    );
    Ok(())
}

fn name(number: usize) -> String {
    format!("many-{number}")
}

async fn each(numbers: impl Iterator<Item = usize>, call: impl AsyncFn(usize) -> Result<()>) -> Result<()> {
    let call = &call;
    stream::iter(numbers.map(Ok)).try_for_each_concurrent(AT_ONCE, move |number| call(number)).await
}

/// What a watch of all clusters has told.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    settled: usize,
    /// Changes of specs since their creation.
    changes: i64,
}

fn follow(bench: &Bench) -> watch::Receiver<Seen> {
    let api = bench.api();
    let (sender, receiver) = watch::channel(Seen::default());
    tokio::spawn(async move {
        let mut events = pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
        let mut known: HashMap<String, (bool, i64)> = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::InitApply(cluster) | Event::Apply(cluster)) => note(&mut known, &cluster),
                Ok(Event::Init | Event::InitDone | Event::Delete(_)) => {}
                Err(error) => eprintln!("the watch of clusters broke: {error}"),
            }
            let settled = known.values().filter(|(settled, _)| *settled).count();
            let _ = sender.send(Seen { settled, changes: known.values().map(|(_, changes)| changes).sum() });
        }
    });
    receiver
}

fn note(known: &mut HashMap<String, (bool, i64)>, cluster: &ServingCluster) {
    let changes = cluster.metadata.generation.unwrap_or(1) - 1;
    known.insert(cluster.metadata.name.clone().unwrap_or_default(), (is_settled(cluster), changes));
}

/// Waits until so many changes were seen and all clusters are settled.
async fn all(seen: &watch::Receiver<Seen>, clusters: usize, changes: usize) -> Result<()> {
    let mut now = seen.clone();
    let wanted = |seen: &Seen| seen.settled == clusters && seen.changes == changes as i64;
    let reached = tokio::time::timeout(PATIENCE, now.wait_for(wanted)).await;
    reached.with_context(|| format!("{:?} of {clusters}", *seen.borrow()))??;
    Ok(())
}
