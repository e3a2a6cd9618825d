//! A life of a `ServingCluster`, disturbed at each of the operator's writes. scripts/faults.sh runs it in a cluster of
//! fake nodes. `SHOAL_FAULTS=all` disturbs every write by every fault; other words choose the plans whose text
//! contains them.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use shoal_e2e::{
    kubernetes::{
        Cluster,
        campaign::{ORDINARY, Plan, Record, Reference, TWICE, World, plans},
    },
    process::build_folder,
};

/// Lives beside each other: most of a life is waiting.
const TOGETHER: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn faults_leave_every_life_as_an_undisturbed_one() -> Result<()> {
    let Some(cluster) = Cluster::find().await? else { return Ok(()) };
    if !cluster.is_fake().await? {
        eprintln!("skipped: the nodes of this cluster are not fake; run it with: make faults");
        return Ok(());
    }
    let began = Instant::now();
    let asked = std::env::var("SHOAL_FAULTS").unwrap_or_default();
    let folder = build_folder()?.join("../faults-log");
    let world = World::enter(folder.clone()).await?;
    let [ordinary, again, twice, twice_again] = undisturbed(&world).await?;
    let references =
        [(ORDINARY, Reference::of(&ordinary, &again)?), (TWICE, Reference::of(&twice, &twice_again)?)];
    for mask in references.iter().flat_map(|(_, reference)| &reference.masks) {
        println!("differs between undisturbed lives, not compared: {mask}");
    }
    let judge = |plan: &Plan, life: &Record| {
        let reference = references.iter().find(|(steps, _)| *steps == plan.steps);
        reference.map_or(Ok(()), |(_, reference)| reference.judge(life))
    };
    let mut plans = plans(&[&ordinary.writes, &again.writes], asked == "all");
    plans.retain(|plan| asked.is_empty() || asked == "all" || plan.to_string().contains(&asked));
    ensure!(!plans.is_empty(), "SHOAL_FAULTS: no plan contains {asked:?}");
    let writes = ordinary.writes.iter().filter(|write| !write.call.is_lease()).count();
    println!(
        "{} plans; an undisturbed life has {writes} writes and takes {:.1?}",
        plans.len(),
        ordinary.took
    );
    let number = AtomicUsize::new(4);
    let failures: Vec<String> = stream::iter(&plans)
        .map(async |plan| {
            let lived = world.live(plan, number.fetch_add(1, Ordering::Relaxed)).await;
            let judged = lived.and_then(|life| judge(plan, &life));
            judged.err().map(|error| format!("{plan}\n    {}", format!("{error:#}").replace('\n', "\n    ")))
        })
        .buffer_unordered(TOGETHER)
        .filter_map(async |failure| failure)
        .inspect(|failure| println!("FAILED {failure}"))
        .collect()
        .await;
    println!("{} plans, {} failures in {:.0?}", plans.len(), failures.len(), began.elapsed());
    for (kind, count) in kinds(&plans) {
        println!("  {count:4} {kind}");
    }
    ensure!(
        failures.is_empty(),
        "run one alone with: SHOAL_FAULTS='its text' make faults; logs of operators are in {}",
        shown(&folder)
    );
    Ok(())
}

/// Two of each life, to see what differs without any disturbance.
async fn undisturbed(world: &World) -> Result<[Record; 4]> {
    let plans = [ORDINARY, ORDINARY, TWICE, TWICE].map(Plan::undisturbed);
    let lives = plans.iter().enumerate().map(|(number, plan)| world.live(plan, number));
    let lives = futures::future::try_join_all(lives).await.context("an undisturbed life")?;
    lives.try_into().ok().context("four lives")
}

fn kinds(plans: &[Plan]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for plan in plans {
        let text = plan.to_string();
        let kind = text.split(" at ").next().unwrap_or_default().split(':').next().unwrap_or_default();
        *kinds.entry(kind.to_owned()).or_insert(0) += 1;
    }
    kinds
}

fn shown(folder: &Path) -> String {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).display().to_string()
}
