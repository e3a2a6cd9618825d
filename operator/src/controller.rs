//! The loop: watches feed a queue, each object that something happened to is looked at, and looked at again
//! when its reconcile asks for it. Never two looks at one object at once.

use std::{convert::Infallible, sync::Arc, time::Duration, time::Instant};

use futures::{FutureExt as _, StreamExt as _};
use kube::{
    Client,
    core::DeserializeGuard,
    runtime::{
        applier,
        controller::{self, Action},
        reflector::ObjectRef,
    },
};

use crate::{
    cache::{Cache, Scope, Watched},
    calls::Calls,
    context::Context,
    error::Class,
    fleet::Surroundings,
    lease::Leadership,
    metrics::Metrics,
    pace::paced,
    reconcile::{ReconcileError, reconcile},
};

/// Objects looked at together. Most of a look is waiting for the API server or for engines.
const CONCURRENCY: u16 = 16;
/// Every first list is read within this time, unless the API server is away or refuses one.
const FILLED: Duration = Duration::from_secs(30);
/// What was written is seen within this time, unless a watch is behind. Nothing breaks if it is not.
const SEEN: Duration = Duration::from_secs(1);

/// What a controller is made of, each time that this process begins to lead.
#[derive(Clone)]
pub struct Parts {
    pub client: Client,
    pub scope: Scope,
    pub surroundings: Surroundings,
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
    pub identity: String,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("scope", &self.scope)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a reconcile cannot go on in this process: {0}")]
pub struct Fatal(ReconcileError);

/// Runs until `stop`, then lets running reconciles end.
pub async fn run(parts: Parts, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), Fatal> {
    let Parts { client, scope, surroundings, leadership, metrics, identity } = parts;
    let (cache, triggers) = Cache::watch(&client, &scope, &metrics);
    let clusters = cache.clusters.clone();
    let context = Arc::new(Context::new(client, cache, surroundings, leadership, metrics, &identity));
    let shown = Arc::clone(&context);
    // Kept for as long as this process leads.
    let _showing = context
        .metrics
        .show(move || shown.shown())
        .inspect_err(|error| tracing::warn!(%error, "the page of metrics does not show the ServingClusters"));
    let noted = Arc::clone(&context);
    let triggers = triggers.inspect(move |reference| noted.queued(reference));
    let queue = paced(triggers).map(Ok::<_, Infallible>);
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let looks = applier(
        |watched, context| tokio::spawn(look(watched, context)).map(joined).boxed(),
        |watched, error, context| retry(&watched, error, &context),
        Arc::clone(&context),
        clusters,
        Box::pin(queue).take_until(stop.boxed()),
        config,
    );
    let mut looks = std::pin::pin!(looks);
    while let Some(looked) = looks.next().await {
        match looked {
            Ok(_) => {}
            Err(controller::Error::ObjectNotFound(gone)) => {
                let namespace = gone.namespace.clone().unwrap_or_default();
                context.forget(&ObjectRef::new(&gone.name).within(&namespace));
            }
            Err(controller::Error::ReconcilerFailed(error, _)) if error.class() == Class::Fatal => {
                return Err(Fatal(error));
            }
            Err(controller::Error::ReconcilerFailed(error, object)) => {
                tracing::warn!(object = object.name, %error, class = error.class().as_str(), "reconcile failed");
            }
            Err(error) => tracing::warn!(%error, "the queue broke"),
        }
    }
    Ok(())
}

/// One reconcile, timed and counted.
async fn look(watched: Arc<Watched>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let reference = ObjectRef::from_obj(watched.as_ref());
    context.taken(&reference);
    // Half a view would look like objects that are missing. The stores fill while this waits.
    if tokio::time::timeout(FILLED, context.cache.filled()).await.is_err() {
        return Err(ReconcileError::Blind);
    }
    // A plan from a view without the last look's writes would ask for them again.
    let _ = tokio::time::timeout(SEEN, context.caught_up(&reference)).await;
    let begun = Instant::now();
    let calls = Calls::new(context.client.clone(), context.leadership.clone(), Arc::clone(&context.metrics));
    let outcome = match watched.as_ref() {
        DeserializeGuard(Ok(cluster)) => Box::pin(reconcile(cluster, &context, &calls)).await,
        DeserializeGuard(Err(error)) => Err(ReconcileError::Unreadable(error.to_string())),
    };
    let label = outcome.as_ref().map_or_else(outcome_label, |_| "ok".to_owned());
    context.metrics.reconciled(&label, begun.elapsed(), calls.count());
    if outcome.is_ok() {
        context.succeeded(&reference);
    }
    outcome
}

/// Class and step, never text.
fn outcome_label(error: &ReconcileError) -> String {
    format!("{}_{}", error.class().as_str(), error.step())
}

fn joined(
    ended: Result<Result<Action, ReconcileError>, tokio::task::JoinError>,
) -> Result<Action, ReconcileError> {
    ended.unwrap_or(Err(ReconcileError::Panicked))
}

/// The class of the error decides, and nothing else.
fn retry(watched: &Watched, error: &ReconcileError, context: &Context) -> Action {
    let reference = ObjectRef::from_obj(watched);
    match context.retry_after(&reference, error.class()) {
        Some(pause) => Action::requeue(pause),
        None => Action::await_change(),
    }
}
