//! One life of a `ServingCluster` under one plan.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use shoal_crds::{ServingCluster, ServingRole, condition};
use tokio::sync::mpsc;

use super::{Disturbance, Plan, World, normal, plan::Step};
use crate::{
    kubernetes::{
        operator::Operator,
        proxy::{Proxy, Write},
    },
    until,
};

pub(super) const NAME: &str = "chat";
/// A step under a fault: a call may be late by half a minute, and cores are shared.
const STEP: Duration = Duration::from_mins(2);
/// Between two steps nothing is written for this long.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a server lags behind.
const LAG: Duration = Duration::from_secs(4);
const INSTANCES: &str = "app.kubernetes.io/component=instance";

/// What a life came to.
#[derive(Debug)]
pub struct Record {
    pub namespace: String,
    /// Every object before the end, brought into a form that can be compared.
    pub end: Value,
    /// What was left when everything was deleted.
    pub left: Vec<String>,
    pub writes: Vec<Write>,
    pub requests: usize,
    /// Whether the plan's disturbance came about.
    pub disturbed: bool,
    /// Without the rest at its end.
    pub took: Duration,
}

struct Life<'a> {
    world: &'a World,
    namespace: &'a str,
    plan: &'a Plan,
    proxy: Proxy,
    operator: Operator,
    /// Revision at which each step had been asked for.
    asked: Vec<String>,
}

pub(super) async fn live(world: &World, plan: &Plan, namespace: &str) -> Result<Record> {
    let began = Instant::now();
    make_namespace(world, namespace).await?;
    let before = objects(world, namespace).await?;
    let fault = match &plan.disturbance {
        Disturbance::At(fault, call) => Some((*fault, call.clone())),
        _ => None,
    };
    let (kills, deaths) = mpsc::unbounded_channel();
    let proxy = Proxy::start(world.plain.clone(), fault, kills.clone()).await?;
    let operator =
        Operator::start(world.client.clone(), namespace, &proxy.url(), &world.folder, (kills, deaths))?;
    let mut life = Life { world, namespace, plan, proxy, operator, asked: Vec::new() };
    for (number, step) in plan.steps.iter().enumerate() {
        life.step(number, *step).await.with_context(|| format!("step {number}, {step:?}"))?;
    }
    life.rest().await?;
    life.true_status().await?;
    let end = normal::form(&objects(world, namespace).await?, namespace);
    life.step(plan.steps.len(), Step::Delete).await.context("the last deletion")?;
    let left = life.left(&before).await?;
    let Life { proxy, operator, .. } = life;
    let disturbed = !matches!(plan.disturbance, Disturbance::At(..)) || proxy.fired();
    operator.finish().await?;
    Ok(Record {
        namespace: namespace.to_owned(),
        end,
        left,
        writes: proxy.journal(),
        requests: proxy.requests(),
        disturbed,
        took: began.elapsed().saturating_sub(Duration::from_secs(plan.quiet)),
    })
}

impl Life<'_> {
    async fn step(&mut self, number: usize, step: Step) -> Result<()> {
        let api = Api::<ServingCluster>::namespaced(self.world.client.clone(), self.namespace);
        let revision = match step {
            Step::Apply { prefill, decode, max_batch } => {
                let spec = spec(prefill, decode, max_batch);
                let params = PatchParams::apply("somebody").force();
                api.patch(NAME, &params, &Patch::Apply(&spec)).await?.metadata.resource_version
            }
            Step::Delete => {
                api.delete(NAME, &DeleteParams::default()).await?;
                None
            }
        };
        self.asked.push(revision.unwrap_or_default());
        if self.plan.disturbance == Disturbance::KillIn(number) {
            self.operator.kill().await?;
        }
        self.settled(step).await?;
        if let Disturbance::Stale { seen, restarted } = self.plan.disturbance
            && restarted == number
        {
            let revision = self.asked.get(seen).context("a step that was not asked for yet")?;
            self.proxy.freeze(revision);
            self.operator.kill().await?;
            // The fault itself, not a wait for something.
            tokio::time::sleep(LAG).await;
            self.proxy.thaw();
            self.settled(step).await?;
        }
        Ok(())
    }

    async fn settled(&self, step: Step) -> Result<()> {
        match step {
            Step::Apply { prefill, decode, .. } => {
                until("the fleet is what was asked for", STEP, || async {
                    paced(self.serves(prefill, decode)).await
                })
                .await
            }
            Step::Delete => until("nothing is left", STEP, || async { paced(self.gone()).await }).await,
        }
    }

    async fn serves(&self, prefill: i32, decode: i32) -> Result<()> {
        ensure!(self.proxy.quiet_for(PAUSE), "the operator writes");
        let api = Api::<ServingCluster>::namespaced(self.world.client.clone(), self.namespace);
        let found = api.get(NAME).await?;
        let status = found.status.context("no status yet")?;
        ensure!(status.observed_generation == found.metadata.generation, "the newest spec was not seen yet");
        let settled = status.is(condition::READY)
            && !status.is(condition::PROGRESSING)
            && !status.is(condition::DEGRADED)
            && !status.is(condition::STALLED);
        ensure!(settled, "conditions: {:?}", status.conditions);
        for (role, asked) in [(&status.prefill, prefill), (&status.decode, decode)] {
            ensure!((role.desired, role.ready) == (asked, asked), "{} of {asked}", role.summary);
        }
        let roles = Api::<ServingRole>::namespaced(self.world.client.clone(), self.namespace);
        for (role, asked) in [("prefill", prefill), ("decode", decode)] {
            let status = roles.get(&format!("{NAME}-{role}")).await?.status.unwrap_or_default();
            let told = (status.replicas, status.ready_replicas);
            ensure!(told == (asked, asked), "the ServingRole of {role} says {told:?}, {asked} asked for");
        }
        let pods = self.instances().await?.len();
        ensure!(pods == (prefill + decode) as usize, "{pods} pods of instances");
        Ok(())
    }

    async fn gone(&self) -> Result<()> {
        ensure!(self.proxy.quiet_for(PAUSE), "the operator writes");
        let api = Api::<ServingCluster>::namespaced(self.world.client.clone(), self.namespace);
        ensure!(api.get_opt(NAME).await?.is_none(), "the ServingCluster is still there");
        let pods = Api::<Pod>::namespaced(self.world.client.clone(), self.namespace);
        let pods = pods.list_metadata(&ListParams::default()).await?.items.len();
        ensure!(pods == 0, "{pods} pods");
        Ok(())
    }

    async fn instances(&self) -> Result<Vec<Pod>> {
        let api = Api::<Pod>::namespaced(self.world.client.clone(), self.namespace);
        Ok(api.list(&ListParams::default().labels(INSTANCES)).await?.items)
    }

    /// Nothing is written while nothing happens.
    async fn rest(&self) -> Result<()> {
        let count = || self.proxy.journal().iter().filter(|write| !write.call.is_lease()).count();
        let written = count();
        tokio::time::sleep(Duration::from_secs(self.plan.quiet)).await;
        let journal = self.proxy.journal();
        let more: Vec<String> = journal
            .iter()
            .filter(|write| !write.call.is_lease())
            .skip(written)
            .map(|write| write.call.to_string())
            .collect();
        ensure!(more.is_empty(), "written while nothing happened: {more:?}");
        Ok(())
    }

    /// Every engine has the role of its pod's mark and admits work, as the status has said.
    async fn true_status(&self) -> Result<()> {
        for pod in self.instances().await? {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let marked = pod.metadata.labels.as_ref().and_then(|labels| labels.get("shoal.dev/role"));
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
            let said = self.world.engines.state(address.unwrap_or_default().parse()?);
            let said = said.with_context(|| format!("{name} has no engine"))?;
            ensure!(said.instance == name && !said.draining, "the engine of {name} says {said:?}");
            let role = said.role().as_str_name().trim_start_matches("ROLE_").to_lowercase();
            ensure!(marked == Some(&role), "{name} is marked {marked:?}, its engine says {role}");
        }
        Ok(())
    }

    /// What is there beside what was there before anything was asked for.
    async fn left(&self, before: &[DynamicObject]) -> Result<Vec<String>> {
        let gone = until("the garbage collector is done", STEP, || async {
            paced(async {
                let now = objects(self.world, self.namespace).await?;
                let more: Vec<String> = now
                    .iter()
                    .map(normal::name)
                    .filter(|name| !before.iter().any(|was| normal::name(was) == *name))
                    .collect();
                if more.is_empty() { Ok(()) } else { bail!("{more:?}") }
            })
            .await
        });
        Ok(gone.await.err().map(|error| vec![format!("{error:#}")]).unwrap_or_default())
    }
}

/// A look costs the API server something, and many lives share it.
async fn paced<T>(look: impl Future<Output = Result<T>>) -> Result<T> {
    let looked = look.await;
    if looked.is_err() {
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    looked
}

fn spec(prefill: i32, decode: i32, max_batch: i32) -> Value {
    json!({
        "apiVersion": "shoal.dev/v1alpha1", "kind": "ServingCluster", "metadata": {"name": NAME},
        "spec": {
            "model": {"name": "smollm2", "source": {"path": "/models/smollm2.gguf"}},
            "engine": {"kvMemory": "64Mi", "maxBatch": max_batch},
            "prefill": {"replicas": prefill},
            "decode": {"replicas": decode},
        },
    })
}

async fn make_namespace(world: &World, name: &str) -> Result<()> {
    let object: Namespace = serde_json::from_value(json!({"metadata": {
        "name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    }}))?;
    Api::<Namespace>::all(world.client.clone()).create(&PostParams::default(), &object).await?;
    let accounts = Api::<ServiceAccount>::namespaced(world.client.clone(), name);
    until("the namespace has an account", STEP, || async {
        paced(async { Ok(accounts.get("default").await?) }).await
    })
    .await?;
    let maps = Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(world.client.clone(), name);
    until("the namespace has the cluster's certificate", STEP, || async {
        paced(async { Ok(maps.get("kube-root-ca.crt").await?) }).await
    })
    .await?;
    Ok(())
}

/// Every object of the namespace.
async fn objects(world: &World, namespace: &str) -> Result<Vec<DynamicObject>> {
    let mut found = Vec::new();
    for kind in world.kinds.iter() {
        let api = Api::<DynamicObject>::namespaced_with(world.client.clone(), namespace, kind);
        let listed = api.list(&ListParams::default()).await.with_context(|| kind.plural.clone())?;
        found.extend(listed.items.into_iter().map(|mut object| {
            object.types =
                Some(kube::core::TypeMeta { api_version: kind.api_version.clone(), kind: kind.kind.clone() });
            object
        }));
    }
    Ok(found)
}
