//! Carries out the planner's steps on instances: one write each, safe to be made late, twice or never.
//!
//! ```text
//! create    POST under a fixed name; a name that is taken was made by an earlier try
//! replace   POST of the next pod of the instance; the old pod is superseded and goes on the next look
//! drain     the mark first; the engine is told when the mark is seen
//! delete    DELETE of that UID at that resource version
//! ```

use std::collections::BTreeMap;

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource as _;
use serde_json::{Value, json};
use shoal_crds::{ServingCluster, ServingRole};
use shoal_plan::{Action, CrashHistory, Observed, Phase, Plan, Role, Step, Template};
use tokio::sync::OnceCell;

use crate::{
    apply::{ApplyError, Effect},
    calls::{Calls, Identity},
    children::{Instance, instance_pod},
    clock,
    context::Context,
    counts,
    fleet::Fleet,
    labels,
    observe::{Facts, InstanceFacts, State},
};

/// A drained engine ends at once; one that is out of time, silent or superseded gets no more than this. One that
/// may hold requests gets what its pod says.
const EXIT_SECONDS: u32 = 10;

/// Steps of one look. What is beyond is planned anew on the next look, from what is seen then: a look ends soon
/// enough to notice another spec, and makes a bounded number of calls.
pub const MOST: usize = 256;
/// Writes on their way at once. More of them only wait in the API server.
pub const AT_ONCE: usize = 16;

/// What the steps of one plan are carried out on.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    pub context: &'a Context,
    pub calls: &'a Calls,
    pub fleet: &'a Fleet,
    pub facts: &'a Facts,
    pub observed: &'a Observed,
    /// That the spec is still the one that was planned from, once it was asked.
    pub confirmed: &'a OnceCell<()>,
}

/// The steps of a plan that one look carries out, what makes room before what needs it.
pub fn of_one_look(plan: &Plan) -> Vec<&Step> {
    let (creations, others): (Vec<&Step>, Vec<&Step>) =
        plan.steps.iter().partition(|step| matches!(step.action, Action::CreateInstance { .. }));
    others.into_iter().chain(creations).take(MOST).collect()
}

/// Whether an action takes something away: then the view that it was planned from is checked first.
pub fn takes_away(action: &Action) -> bool {
    match action {
        Action::DrainInstance { .. }
        | Action::DeleteInstance { .. }
        | Action::ReplaceInstance { .. }
        | Action::StopGateway => true,
        Action::CreateInstance { .. }
        | Action::UndrainInstance { .. }
        | Action::CreateGateway { .. }
        | Action::ReplaceGateway { .. } => false,
    }
}

impl Scene<'_> {
    /// Spec and counts are still those that were planned from, as the API server has them and not a cache.
    pub async fn confirm(&self) -> Result<(), ApplyError> {
        self.confirm_spec().await?;
        for role in Role::ALL {
            self.confirm_count(role).await?;
        }
        Ok(())
    }

    /// Before anything is made, once in a look: what is missing may have gone with its cluster, and a watch of the
    /// cluster that is behind the others does not tell so. Whatever was made then would go again, after it had held
    /// devices and started to load.
    pub async fn still_wanted(&self) -> Result<(), ApplyError> {
        self.confirmed.get_or_try_init(|| self.confirm_spec()).await.map(drop)
    }

    async fn confirm_spec(&self) -> Result<(), ApplyError> {
        let api = kube::Api::<ServingCluster>::namespaced(self.calls.client().clone(), &self.fleet.namespace);
        let found = self.calls.get_by(&api, "ServingCluster", self.fleet.name()).await?;
        let same = found.is_some_and(|found| {
            let meta = found.meta();
            meta.uid.as_deref() == Some(&self.fleet.uid)
                && meta.generation.unwrap_or(1) == self.fleet.cluster.generation
                && meta.deletion_timestamp.is_none()
        });
        if same { Ok(()) } else { Err(ApplyError::Outdated) }
    }

    async fn confirm_count(&self, role: Role) -> Result<(), ApplyError> {
        let Self { calls, fleet, .. } = self;
        let name = fleet.names().role(role);
        let found = calls.get::<ServingRole>(&fleet.namespace, name.as_str()).await?;
        let own = found.filter(|found| fleet.controls(&found.metadata));
        let asked = counts::asked(fleet.manifest.get(role), own.as_ref());
        if asked == fleet.asked.get(role) { Ok(()) } else { Err(ApplyError::Outdated) }
    }

    /// One step on an instance. The gateway's are carried out by rendering it (see `reconcile`).
    pub async fn carry_out(&self, action: &Action) -> Result<Effect, ApplyError> {
        match action {
            Action::CreateInstance { name, role, template } => {
                let fresh = Instance { name, attempt: 1, role: *role, crashes: CrashHistory::default() };
                self.create(&fresh, template).await
            }
            Action::ReplaceInstance { name, role, template } => self.replace(name, *role, template).await,
            Action::DrainInstance { name } => match self.facts.instance(name) {
                Some(found) => self.mark(found, Some(clock::now())).await,
                None => Ok(Effect::Unchanged),
            },
            Action::UndrainInstance { name } => match self.facts.instance(name) {
                Some(found) => self.mark(found, None).await,
                None => Ok(Effect::Unchanged),
            },
            Action::DeleteInstance { name } => match self.facts.instance(name) {
                Some(found) => {
                    let holds = found.runs() && found.draining.is_none();
                    self.delete(&found.identity, (!holds).then_some(EXIT_SECONDS)).await
                }
                None => Ok(Effect::Unchanged),
            },
            // A gateway that rolls is never stopped, and a cluster that is deleted is not planned for.
            Action::CreateGateway { .. } | Action::ReplaceGateway { .. } | Action::StopGateway => {
                Ok(Effect::Unchanged)
            }
        }
    }

    /// Asks the pods to end whose instances have newer ones.
    pub async fn clear(&self) -> Result<Effect, ApplyError> {
        let superseded = self.facts.superseded.iter().take(MOST);
        all(superseded.map(|identity| self.delete(identity, Some(EXIT_SECONDS)).boxed()).collect()).await
    }

    async fn create(&self, instance: &Instance<'_>, template: &Template) -> Result<Effect, ApplyError> {
        self.still_wanted().await?;
        let pod = instance_pod(self.fleet, instance, template);
        match self.calls.create(&self.fleet.namespace, &pod).await {
            Ok(_) => {
                self.wrote(&pod, None);
                Ok(Effect::Written)
            }
            Err(error) if error.already_exists() => self.adopt(&pod).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The name is taken: by an earlier try that the cache does not show yet, by a pod of ours that lost the
    /// labels which bring it into the cache, or by somebody else.
    async fn adopt(&self, wanted: &Pod) -> Result<Effect, ApplyError> {
        let name = wanted.metadata.name.clone().unwrap_or_default();
        let Some(found) = self.calls.get::<Pod>(&self.fleet.namespace, &name).await? else {
            return Ok(Effect::Unchanged);
        };
        if !self.fleet.controls(&found.metadata) {
            return Err(ApplyError::Foreign { kind: "Pod", name });
        }
        self.wrote(&found, None);
        let wanted = wanted.metadata.labels.clone().unwrap_or_default();
        let labels = found.metadata.labels.clone().unwrap_or_default();
        if found.metadata.deletion_timestamp.is_some() || has_all(&labels, &wanted) {
            return Ok(Effect::Unchanged);
        }
        let body = marks(&Identity::of(&found.metadata), &self.fleet.namespace, &wanted, None);
        self.calls.apply::<Pod>(&self.fleet.namespace, &name, &body).await?;
        Ok(Effect::Written)
    }

    /// Gives pods back the labels that somebody took.
    pub async fn relabel(&self) -> Result<Effect, ApplyError> {
        let bare = self.facts.instances.iter().filter(|found| {
            let stays = !matches!(found.state, State::Stopping { .. });
            stays && !has_all(&found.labels, &self.labels(found))
        });
        all(bare.take(MOST).map(|found| self.mark(found, found.draining).boxed()).collect()).await
    }

    fn labels(&self, found: &InstanceFacts) -> BTreeMap<String, String> {
        let mut labels = labels::instance(self.fleet.name(), &found.name, found.role, &found.model);
        // A pod whose model nobody knows any more is replaced, not named after a guess.
        labels.retain(|_, value| !value.is_empty());
        labels
    }

    /// The old pod's crashes travel to the new one: a pod that had to be given up while it lived counts too.
    async fn replace(&self, name: &str, role: Role, template: &Template) -> Result<Effect, ApplyError> {
        let index = self.observed.instances.binary_search_by(|instance| instance.name.as_str().cmp(name));
        let seen = index.ok().map(|index| &self.observed.instances[index]);
        let (Some(facts), Some(seen)) = (self.facts.instance(name), seen) else {
            return Ok(Effect::Unchanged);
        };
        let crashes = match seen.phase {
            Phase::Crashed { .. } | Phase::Retrying { .. } => seen.crashes,
            _ => seen.crashes.after_crash(None, clock::now()),
        };
        let attempt = facts.attempt.saturating_add(1);
        self.create(&Instance { name, attempt, role, crashes }, template).await
    }

    /// Writes every mark of a pod; among them since when it is to admit nothing, if it is.
    async fn mark(&self, found: &InstanceFacts, draining: Option<Timestamp>) -> Result<Effect, ApplyError> {
        let body = marks(&found.identity, &self.fleet.namespace, &self.labels(found), draining);
        self.calls.apply::<Pod>(&self.fleet.namespace, &found.identity.name, &body).await?;
        self.context.wrote(self.fleet, &found.identity.name, Some(&found.identity.resource_version));
        Ok(Effect::Written)
    }

    fn wrote(&self, pod: &Pod, seen: Option<&str>) {
        self.context.wrote(self.fleet, pod.metadata.name.as_deref().unwrap_or_default(), seen);
    }

    async fn delete(&self, identity: &Identity, grace: Option<u32>) -> Result<Effect, ApplyError> {
        let gone = self.calls.delete::<Pod>(&self.fleet.namespace, identity, grace).await?;
        self.context.wrote(self.fleet, &identity.name, Some(&identity.resource_version));
        Ok(if gone { Effect::Written } else { Effect::Unchanged })
    }

    /// The pod as it is now still is to admit work: asked before an engine is told to.
    pub async fn admits(&self, facts: &InstanceFacts) -> Result<bool, ApplyError> {
        let found = self.calls.get::<Pod>(&self.fleet.namespace, &facts.identity.name).await?;
        Ok(found.is_some_and(|pod| {
            let meta = pod.metadata;
            let drains = meta.annotations.is_some_and(|notes| notes.contains_key(labels::DRAINING_SINCE));
            meta.uid.as_deref() == Some(&facts.identity.uid) && meta.deletion_timestamp.is_none() && !drains
        }))
    }
}

/// Makes writes that have nothing to do with each other, some at a time. All are made; the first failure counts.
async fn all(writes: Vec<BoxFuture<'_, Result<Effect, ApplyError>>>) -> Result<Effect, ApplyError> {
    let outcomes: Vec<_> = stream::iter(writes).buffer_unordered(AT_ONCE).collect().await;
    outcomes.into_iter().try_fold(Effect::Unchanged, |before, outcome| Ok(before.max(outcome?)))
}

/// Everything of a pod that changes while it lives, for server-side apply: what is left out is taken away.
/// UID and resource version make it that pod as it was seen, or none.
fn marks(
    identity: &Identity,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    draining: Option<Timestamp>,
) -> Value {
    let annotations = draining.map(|since| labels::map([(labels::DRAINING_SINCE, &since.to_string())]));
    let Identity { name, uid, resource_version } = identity;
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "resourceVersion": resource_version,
            "labels": labels,
            "annotations": annotations.unwrap_or_default(),
        },
    })
}

fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
