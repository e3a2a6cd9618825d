//! The only writer of status: what the planner says is true, and what stands in the way of making it so.

mod role;

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, core::ObjectMeta};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use shoal_crds::{
    API_VERSION, Condition, ServingCluster, ServingClusterStatus, ServingRole, ServingRoleStatus, condition,
    time_from_unix,
};

use crate::{
    apply::ApplyError,
    calls::Calls,
    clock,
    counts::Hold,
    error::{CallError, Class},
    observe::ObserveError,
    validate::ValidateError,
};

pub use role::of_role;

#[derive(Debug, thiserror::Error)]
#[error("publishing the status: {0}")]
pub struct StatusError(#[from] CallError);

impl StatusError {
    pub fn class(&self) -> Class {
        self.0.class()
    }
}

/// What a person has to do something about: nothing moves on until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    reason: &'static str,
    message: String,
}

impl Stall {
    pub fn of_spec(error: &ValidateError) -> Self {
        Self { reason: "InvalidSpec", message: error.to_string() }
    }

    pub fn of_hold(hold: &Hold) -> Self {
        Self::new("TooManyReplicas", hold)
    }

    /// None for trouble that may pass by itself.
    pub fn of_observe(error: &ObserveError) -> Option<Self> {
        match error {
            ObserveError::Call(call) => Self::of_call(call),
            ObserveError::ForeignSecret { .. } => Some(Self::new("NameTaken", error)),
            ObserveError::BrokenSecret { .. } => Some(Self::new("BrokenSecret", error)),
        }
    }

    /// None for trouble that may pass by itself.
    pub fn of_apply(error: &ApplyError) -> Option<Self> {
        match error {
            ApplyError::Call(call) => Self::of_call(call),
            ApplyError::Foreign { .. } => Some(Self::new("NameTaken", error)),
            ApplyError::Json { .. } | ApplyError::Outdated | ApplyError::Random(_) | ApplyError::Issue(_) => {
                None
            }
        }
    }

    fn of_call(error: &CallError) -> Option<Self> {
        let message = error.refusal()?;
        let reason = match message {
            _ if message.contains("violates PodSecurity") => "PodSecurityRefused",
            _ if message.contains("exceeded quota") => "QuotaExceeded",
            _ => "Refused",
        };
        Some(Self { reason, message: message.to_owned() })
    }

    fn new(reason: &'static str, error: &impl ToString) -> Self {
        Self { reason, message: error.to_string() }
    }
}

/// The status of a cluster that is not planned for: what was true stays, and why nothing moves.
pub fn unplanned(cluster: &ServingCluster, stall: &Stall) -> ServingClusterStatus {
    let previous = cluster.status.clone().unwrap_or_default();
    let mut status = ServingClusterStatus {
        observed_generation: Some(cluster.metadata.generation.unwrap_or(1)),
        ..previous
    };
    if status.conditions.is_empty() {
        let refused = set(cluster, None, condition::READY, false, stall);
        status.conditions.push(refused);
    }
    with_stall(cluster, status, Some(stall))
}

/// `status` with the conditions that the planner knows nothing of, each there only while it holds: Stalled, or else
/// Reconciling, by which kstatus finds that Progressing is true.
pub fn with_stall(
    cluster: &ServingCluster,
    mut status: ServingClusterStatus,
    stall: Option<&Stall>,
) -> ServingClusterStatus {
    status.conditions.retain(|found| ![condition::STALLED, condition::RECONCILING].contains(&&*found.type_));
    let previous = cluster.status.as_ref().and_then(|previous| previous.condition(condition::STALLED));
    let progressing = status.condition(condition::PROGRESSING).filter(|found| found.status == "True");
    let holds = match stall {
        Some(stall) => Some(set(cluster, previous, condition::STALLED, true, stall)),
        None => {
            progressing.map(|found| Condition { type_: condition::RECONCILING.to_owned(), ..found.clone() })
        }
    };
    status.conditions.extend(holds);
    status
}

fn set(
    cluster: &ServingCluster,
    previous: Option<&Condition>,
    kind: &str,
    holds: bool,
    stall: &Stall,
) -> Condition {
    let since = previous.map(|previous| previous.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: stall.reason.to_owned(),
        message: stall.message.clone(),
        observed_generation: cluster.metadata.generation,
        last_transition_time: since.unwrap_or_else(|| time_from_unix(clock::now().as_second())),
    }
}

/// Whether a status tells of another state than the one before, and not only of other numbers on the way. What
/// stalls always does: a person reads its words, and there may be no next look.
pub fn is_edge(before: &Value, now: &Value) -> bool {
    let mut conditions = now["conditions"].as_array().into_iter().flatten();
    conditions.any(|found| found["type"] == condition::STALLED) || state(before) != state(now)
}

/// What people and programs wait for.
fn state(status: &Value) -> Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let conditions: Vec<_> =
        conditions.map(|found| json!([found["type"], found["status"], found["reason"]])).collect();
    let desired = [&status["prefill"]["desired"], &status["decode"]["desired"]];
    json!([conditions, status["observedGeneration"], status["endpoint"], desired])
}

/// Writes the status if it differs from the one that is there; whether it did.
pub async fn publish(
    calls: &Calls,
    cluster: &ServingCluster,
    status: &ServingClusterStatus,
) -> Result<bool, StatusError> {
    if cluster.status.as_ref() == Some(status) {
        return Ok(false);
    }
    write::<ServingCluster>(calls, "ServingCluster", &cluster.metadata, status).await?;
    Ok(true)
}

/// The same of a ServingRole.
pub async fn publish_role(
    calls: &Calls,
    role: &ServingRole,
    status: &ServingRoleStatus,
) -> Result<bool, StatusError> {
    if role.status.as_ref() == Some(status) {
        return Ok(false);
    }
    write::<ServingRole>(calls, "ServingRole", &role.metadata, status).await?;
    Ok(true)
}

async fn write<K>(
    calls: &Calls,
    kind: &'static str,
    meta: &ObjectMeta,
    status: &(impl Serialize + Sync),
) -> Result<(), StatusError>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": { "name": name, "namespace": namespace, "uid": meta.uid },
        "status": status,
    });
    let api = Api::<K>::namespaced(calls.client().clone(), &namespace);
    calls.apply_status(&api, kind, &name, &body).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
