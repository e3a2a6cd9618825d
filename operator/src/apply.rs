//! The only writer of children. What is already as it was rendered is not written.

use std::marker::PhantomData;

use serde_json::Value;

use crate::{
    certificates::IssueError,
    children::{Applied, Child, Children, Prepared},
    covers::covers,
    error::{CallError, Class},
    steps::Scene,
};

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{kind} {name} belongs to somebody else; delete or rename it")]
    Foreign { kind: &'static str, name: String },
    #[error("{kind} cannot be written as JSON: {source}")]
    Json { kind: &'static str, source: serde_json::Error },
    #[error("the spec has changed since it was looked at")]
    Outdated,
    #[error("no randomness for the fleet secret: {0}")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl ApplyError {
    pub fn class(&self) -> Class {
        match self {
            Self::Call(error) => error.class(),
            // Whoever owns the name may give it up; the next try has other keys.
            Self::Foreign { .. } | Self::Issue(_) => Class::Transient,
            Self::Json { .. } => Class::Invalid,
            Self::Outdated => Class::Conflict,
            Self::Random(_) => Class::Fatal,
        }
    }
}

/// Whether anything was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    Unchanged,
    Written,
}

/// Writes what differs. Counts come first: a scaling that was not seen ends it before anything else is done.
/// Access and policies come before the pods that need them; the Deployment comes last,
/// so that no gateway starts without them.
pub async fn apply(
    scene: &Scene<'_>,
    children: Children<Prepared>,
) -> Result<(Children<Applied>, Effect), ApplyError> {
    // Both without a rest pattern: a kind that is rendered and not written must not compile.
    let Children {
        prefill_role,
        decode_role,
        account,
        role,
        binding,
        instances_policy,
        gateway_policy,
        instances_service,
        gateway_service,
        budget,
        gateway,
        stage: PhantomData,
    } = children;
    let live = &scene.facts.live;
    let mut pen = Pen { scene, effect: Effect::Unchanged };
    let written = Children {
        prefill_role: pen.put_as_seen(prefill_role, live.prefill_role.as_deref()).await?,
        decode_role: pen.put_as_seen(decode_role, live.decode_role.as_deref()).await?,
        account: pen.put(account, live.account.as_deref()).await?,
        role: pen.put(role, live.role.as_deref()).await?,
        binding: pen.put(binding, live.binding.as_deref()).await?,
        instances_policy: pen.put(instances_policy, live.instances_policy.as_deref()).await?,
        gateway_policy: pen.put(gateway_policy, live.gateway_policy.as_deref()).await?,
        instances_service: pen.put(instances_service, live.instances_service.as_deref()).await?,
        gateway_service: pen.put(gateway_service, live.gateway_service.as_deref()).await?,
        budget: pen.put(budget, live.budget.as_deref()).await?,
        gateway: Box::pin(pen.put(gateway, live.gateway.as_deref())).await?,
        stage: PhantomData,
    };
    Ok((written, pen.effect))
}

/// What a write may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The object that was looked at, whatever has become of it.
    Object,
    /// The object exactly as it was looked at.
    Version,
}

/// Writes objects one by one and remembers whether it had to.
struct Pen<'a> {
    scene: &'a Scene<'a>,
    effect: Effect,
}

impl Pen<'_> {
    /// Applies one object, unless it is so already. An object that the cache does not have is looked for
    /// first: it may be somebody else's, which is not taken over.
    async fn put<K: Child>(&mut self, wanted: K, cached: Option<&K>) -> Result<K, ApplyError> {
        self.put_over(wanted, cached, Over::Object).await
    }

    /// The same, of an object that others edit too: what they wrote after it was seen is not overwritten.
    async fn put_as_seen<K: Child>(&mut self, wanted: K, cached: Option<&K>) -> Result<K, ApplyError> {
        self.put_over(wanted, cached, Over::Version).await
    }

    async fn put_over<K: Child>(
        &mut self,
        mut wanted: K,
        cached: Option<&K>,
        over: Over,
    ) -> Result<K, ApplyError> {
        let Scene { calls, fleet, .. } = self.scene;
        let namespace = &fleet.namespace;
        let name = wanted.meta().name.clone().unwrap_or_default();
        let fetched = match cached {
            Some(_) => None,
            None => calls.get::<K>(namespace, &name).await?,
        };
        if let Some(found) = cached.or(fetched.as_ref()) {
            if !fleet.controls(found.meta()) {
                return Err(ApplyError::Foreign { kind: K::KIND, name });
            }
            if covers(&json(found)?, &json(&wanted)?) {
                return Ok(found.clone());
            }
            // The very object that was looked at, or none.
            wanted.meta_mut().uid.clone_from(&found.meta().uid);
            if over == Over::Version {
                wanted.meta_mut().resource_version.clone_from(&found.meta().resource_version);
                // The watch of the cluster may be behind that of this object.
                self.scene.still_wanted().await?;
            }
        } else {
            self.scene.still_wanted().await?;
        }
        self.effect = Effect::Written;
        Ok(calls.apply::<K>(namespace, &name, &wanted).await?)
    }
}

fn json<K: Child>(object: &K) -> Result<Value, ApplyError> {
    serde_json::to_value(object).map_err(|source| ApplyError::Json { kind: K::KIND, source })
}
