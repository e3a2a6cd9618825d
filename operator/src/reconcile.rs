//! One look at one cluster, and what follows from it.

use std::{collections::HashMap, time::Duration};

use futures::{FutureExt as _, StreamExt as _, stream};
use kube::{Resource as _, runtime::controller::Action};
use shoal_crds::ServingCluster;
use shoal_plan::{Action as Act, GatewayTemplate, Observed, Phase, Plan, Role, Step};
use tokio::sync::OnceCell;

use crate::{
    actuate::{Answer, Correction, Pass, correction},
    apply::{self, ApplyError, Effect},
    calls::Calls,
    certificates,
    children::{Applied, Children, fleet_secret, fleet_secret_again},
    clock,
    context::Context,
    error::Class,
    events, fetching,
    fleet::Fleet,
    observe::{self, Facts, ObserveError, SeenSecret},
    status::{self, Stall, StatusError},
    steps::{self, Scene},
    validate::ValidateError,
};

/// Until the next look while nothing happens, if there are few engines: they are asked as often whether they still answer.
const RESTING: Duration = Duration::from_secs(15);
/// While an engine drains, comes up or is silent, which no watch tells of.
const MOVING: Duration = Duration::from_secs(1);
/// After an engine was told something.
const TOLD: Duration = Duration::from_millis(250);
/// After a look that carried out a part of its plan.
const AT_ONCE: Duration = Duration::from_millis(1);
/// Engines that are told something at once.
const ENGINES_AT_ONCE: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("the resource cannot be read: {0}")]
    Unreadable(String),
    #[error("{0}")]
    Validate(#[from] ValidateError),
    #[error("{0}")]
    Observe(#[from] ObserveError),
    #[error("{0}")]
    Apply(#[from] ApplyError),
    #[error("{0}")]
    Status(#[from] StatusError),
    #[error("not every kind could be listed yet; the log of watches says which")]
    Blind,
    #[error("a reconcile panicked")]
    Panicked,
}

impl ReconcileError {
    pub fn class(&self) -> Class {
        match self {
            Self::Unreadable(_) => Class::Invalid,
            Self::Validate(error) => error.class(),
            Self::Observe(error) => error.class(),
            Self::Apply(error) => error.class(),
            Self::Status(error) => error.class(),
            Self::Blind | Self::Panicked => Class::Transient,
        }
    }

    /// For metric labels.
    pub fn step(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::Validate(_) => "validate",
            Self::Observe(_) => "observe",
            Self::Apply(_) => "apply",
            Self::Status(_) => "status",
            Self::Blind => "blind",
            Self::Panicked => "panicked",
        }
    }
}

/// Validate, observe, plan, apply, actuate, publish; the next look when time or an engine demands it.
pub async fn reconcile(
    cluster: &ServingCluster,
    context: &Context,
    calls: &Calls,
) -> Result<Action, ReconcileError> {
    if cluster.metadata.deletion_timestamp.is_some() {
        // The garbage collector ends everything that the cluster owns.
        return Ok(Action::await_change());
    }
    // No client.
    let mut fleet = match context.validate(cluster) {
        Ok(fleet) => fleet,
        Err(error) => {
            return Err(refuse(cluster, context, calls, &Stall::of_spec(&error), error.into()).await);
        }
    };
    // Reads.
    let facts = match look(cluster, context, calls, &fleet).await {
        Ok(facts) => facts,
        Err(error) => return Err(stall(cluster, context, calls, error).await),
    };
    fleet.cluster.tls = facts.tls;
    // No client.
    let hold = fleet.settle(&facts.live, cluster.status.as_ref());
    // Asks engines.
    let answers = ask(context, &fleet, &facts).await;
    let loading = fetching::ask(&facts.fetching(), &context.metrics).await;
    // No client.
    let now = clock::now();
    let observed = facts.observed(&answers, now);
    let plan = shoal_plan::plan(&fleet.cluster, &observed, now);
    // Writes children.
    let confirmed = OnceCell::new();
    let scene =
        Scene { context, calls, fleet: &fleet, facts: &facts, observed: &observed, confirmed: &confirmed };
    let written = Box::pin(write(context, &scene, &plan)).await;
    // Tells engines.
    let told = actuate(context, &scene, &answers).await;
    // Writes the status, also of a plan that could not be carried out.
    let held = hold.as_ref().map(Stall::of_hold);
    let trouble = written.as_ref().err().and_then(Stall::of_apply).or_else(|| held.clone());
    let mut status = status::with_stall(cluster, plan.status.clone(), trouble.as_ref());
    status.loading = loading;
    let held_back = publish(cluster, context, calls, &status).await?;
    let roles_held_back = publish_roles(&scene, written.as_ref().ok(), held.as_ref()).await?;
    written?;
    let told = told?;
    let rest = RESTING.max(context.engines.round());
    let next = next_look(&plan, &facts, &observed, &answers, told, rest);
    let held_back = held_back.into_iter().chain(roles_held_back);
    Ok(Action::requeue(held_back.fold(next, Duration::min)))
}

async fn look(
    cluster: &ServingCluster,
    context: &Context,
    calls: &Calls,
    fleet: &Fleet,
) -> Result<Facts, ObserveError> {
    let Context { cache, secrets, identities, .. } = context;
    observe::observe(cache, secrets, identities, calls, fleet, cluster.status.clone()).await
}

async fn ask(context: &Context, fleet: &Fleet, facts: &Facts) -> HashMap<String, Answer> {
    let Some(secret) = facts.secret_of_pods() else { return HashMap::new() };
    let identity = context.identities.identity(&fleet.uid);
    let pass = Pass { secret: &secret.value, identity: identity.as_ref() };
    let targets: Vec<_> = facts.instances.iter().filter_map(|facts| facts.target()).collect();
    context.engines.ask(&fleet.uid, &targets, pass).await
}

/// Furniture first, then what is in the plan. A step that fails does not keep the others from being made;
/// the first failure is returned.
async fn write(context: &Context, scene: &Scene<'_>, plan: &Plan) -> Result<Children<Applied>, ApplyError> {
    let secret = ensure_secret(context, scene).await?;
    let rotated = Box::pin(certificates::ensure(&context.identities, scene));
    // A fleet that has a certificate goes on with it.
    let (mut first, rotated) = match rotated.await {
        Ok(events) => (None, events),
        Err(error) if scene.facts.certificates.leaf.is_some() => (Some(error), Vec::new()),
        Err(error) => return Err(error),
    };
    let template = gateway_template(scene, plan);
    let children = Children::render(scene.fleet, &template, &secret.id);
    let furnish = Box::pin(apply::apply(scene, children));
    let (children, furnished) = furnish.await?;
    let steps = steps::of_one_look(plan);
    if steps.iter().any(|step| steps::takes_away(&step.action)) {
        scene.confirm().await?;
    }
    let carried: Vec<_> = steps.into_iter().map(|step| carry_out(scene, step, furnished).boxed()).collect();
    let outcomes: Vec<_> = stream::iter(carried).buffer_unordered(steps::AT_ONCE).collect().await;
    let mut told = Vec::new();
    for (step, outcome) in outcomes {
        match outcome {
            Ok(Effect::Unchanged) => {}
            Ok(Effect::Written) => told.push(step),
            Err(error) => first = first.or(Some(error)),
        }
    }
    let mut told = events::of_steps(&told);
    told.extend(rotated);
    told.extend(scene.facts.lost_secret.as_ref().map(|_| events::of_lost_secret()));
    let reference = scene.fleet.reference.clone().into();
    events::publish(scene.calls, &context.recorder, &reference, &told).await;
    let tidied = async {
        scene.relabel().await?;
        scene.clear().await
    };
    let tidied = tidied.await;
    match first {
        Some(error) => Err(error),
        None => tidied.map(|_| children),
    }
}

/// One step, counted and logged. The gateway's were carried out with the furniture.
async fn carry_out<'a>(
    scene: &Scene<'_>,
    step: &'a Step,
    furnished: Effect,
) -> (&'a Step, Result<Effect, ApplyError>) {
    let effect = match &step.action {
        Act::CreateGateway { .. } | Act::ReplaceGateway { .. } => Ok(furnished),
        action => scene.carry_out(action).await,
    };
    let outcome = match &effect {
        Ok(Effect::Unchanged) => "unchanged",
        Ok(Effect::Written) => "written",
        Err(_) => "failed",
    };
    scene.context.metrics.stepped(step.action.verb(), outcome);
    if matches!(effect, Ok(Effect::Written)) {
        tracing::info!(step = step.action.verb(), subject = step.action.subject(), reason = step.reason);
    }
    (step, effect)
}

/// The fleet secret that is there; else the one that its pods use; else a new one.
async fn ensure_secret(context: &Context, scene: &Scene<'_>) -> Result<SeenSecret, ApplyError> {
    if let Some(secret) = &scene.facts.secret {
        return Ok(secret.clone());
    }
    scene.still_wanted().await?;
    let secret = match &scene.facts.lost_secret {
        Some(lost) => fleet_secret_again(scene.fleet, lost),
        None => fleet_secret(scene.fleet)?,
    };
    let made = scene.calls.create(&scene.fleet.namespace, &secret).await?;
    let name = made.metadata.name.clone().unwrap_or_default();
    let seen = observe::read_secret(scene.fleet, &name, &made).map_err(|_| ApplyError::Outdated)?;
    Ok(context.secrets.remember(&scene.fleet.uid, seen))
}

/// What the gateway is to be made of now: what the plan says, else what it is made of. A change of the model
/// waits until the planner finds that enough instances of it are ready.
fn gateway_template(scene: &Scene<'_>, plan: &Plan) -> GatewayTemplate {
    let planned = plan.steps.iter().find_map(|step| match &step.action {
        Act::CreateGateway { template } | Act::ReplaceGateway { template } => Some(template.clone()),
        _ => None,
    });
    planned
        .or_else(|| scene.facts.gateway_template().cloned())
        .unwrap_or_else(|| GatewayTemplate::of(&scene.fleet.cluster.spec))
}

/// Makes engines what the marks of their pods say; true if one was told something.
async fn actuate(
    context: &Context,
    scene: &Scene<'_>,
    answers: &HashMap<String, Answer>,
) -> Result<bool, ApplyError> {
    let Some(secret) = scene.facts.secret_of_pods() else { return Ok(false) };
    let identity = context.identities.identity(&scene.fleet.uid);
    let pass = Pass { secret: &secret.value, identity: identity.as_ref() };
    let mut undrained = 0;
    let corrections = scene.facts.instances.iter().filter_map(|found| {
        let said = answers.get(&found.identity.name)?.said.as_ref()?;
        let correction = correction(found.role, found.draining.is_some(), said)?;
        undrained += usize::from(correction == Correction::Undrain);
        // Each of these asks the API server first.
        (correction != Correction::Undrain || undrained <= steps::MOST).then_some((found, correction))
    });
    let telling =
        corrections.map(|(found, correction)| tell(context, scene, pass, found, correction).boxed());
    let telling: Vec<_> = telling.collect();
    let told: Vec<_> = stream::iter(telling).buffer_unordered(ENGINES_AT_ONCE).collect().await;
    told.into_iter().try_fold(false, |before, told| Ok(told? || before))
}

/// Tells one engine; true if it was told.
async fn tell(
    context: &Context,
    scene: &Scene<'_>,
    pass: Pass<'_>,
    found: &observe::InstanceFacts,
    correction: Correction,
) -> Result<bool, ApplyError> {
    let Some(target) = found.target() else { return Ok(false) };
    // The cache may be older than a deletion, which makes an engine drain by itself.
    if correction == Correction::Undrain && !scene.admits(found).await? {
        return Ok(false);
    }
    let epoch = scene.calls.epoch()?;
    let cluster = &scene.fleet.uid;
    if let Err(refusal) = context.engines.correct(cluster, &target, pass, correction, epoch).await {
        tracing::warn!(pod = target.pod, ?correction, epoch, %refusal, "an engine was not set right");
    }
    Ok(true)
}

/// Writes what is to be told, unless only numbers have changed since a moment ago: then, when it may be.
async fn publish(
    cluster: &ServingCluster,
    context: &Context,
    calls: &Calls,
    status: &shoal_crds::ServingClusterStatus,
) -> Result<Option<Duration>, StatusError> {
    let meta = &cluster.metadata;
    if context.is_published(meta, status) {
        return Ok(None);
    }
    if let Some(left) = context.holds_back(meta, status) {
        return Ok(Some(left));
    }
    if status::publish(calls, cluster, status).await? {
        context.published(meta, status);
        let edges = events::of_status(cluster.status.as_ref(), status);
        events::publish(calls, &context.recorder, &cluster.object_ref(&()), &edges).await;
    }
    Ok(None)
}

/// The status of each ServingRole, as it was just written or, if writing failed, as it was seen.
async fn publish_roles(
    scene: &Scene<'_>,
    written: Option<&Children<Applied>>,
    held: Option<&Stall>,
) -> Result<Option<Duration>, StatusError> {
    let Scene { context, calls, fleet, facts, observed, .. } = scene;
    let mut held_back = None;
    for role in Role::ALL {
        let seen = facts.live.role(role).filter(|found| fleet.controls(&found.metadata));
        let Some(object) = written.map(|children| children.role(role)).or(seen) else { continue };
        let status = status::of_role(fleet, role, object, &observed.instances, held);
        if context.is_published(&object.metadata, &status) {
            continue;
        }
        if let Some(left) = context.holds_back(&object.metadata, &status) {
            held_back = Some(left);
        } else if status::publish_role(calls, object, &status).await? {
            context.published(&object.metadata, &status);
        }
    }
    Ok(held_back)
}

/// Says in the status that nothing moves and why; the error itself goes on to decide when to try again.
async fn refuse(
    cluster: &ServingCluster,
    context: &Context,
    calls: &Calls,
    stall: &Stall,
    error: ReconcileError,
) -> ReconcileError {
    let status = status::unplanned(cluster, stall);
    match publish(cluster, context, calls, &status).await {
        Ok(_) => error,
        Err(unpublished) => unpublished.into(),
    }
}

async fn stall(
    cluster: &ServingCluster,
    context: &Context,
    calls: &Calls,
    error: ObserveError,
) -> ReconcileError {
    match Stall::of_observe(&error) {
        Some(stall) => refuse(cluster, context, calls, &stall, error.into()).await,
        None => error.into(),
    }
}

/// Watches tell of pods; only time tells of engines.
fn next_look(
    plan: &Plan,
    facts: &Facts,
    observed: &Observed,
    answers: &HashMap<String, Answer>,
    told: bool,
    rest: Duration,
) -> Duration {
    let comes_up = |name: &str| facts.instance(name).is_some_and(observe::InstanceFacts::runs);
    let moves = observed.instances.iter().any(|instance| match instance.phase {
        Phase::Draining { .. } | Phase::Unresponsive { .. } => true,
        Phase::Starting { .. } => comes_up(&instance.name),
        _ => false,
    });
    let silent = answers.values().any(|answer| answer.silence >= MOVING);
    let engines = match (told, moves || silent) {
        (true, _) => TOLD,
        (false, true) => MOVING,
        (false, false) => rest,
    };
    if plan.steps.len() > steps::MOST {
        return AT_ONCE;
    }
    let due = plan.requeue_after.and_then(|after| Duration::try_from(after).ok());
    due.map_or(engines, |due| engines.min(due.max(TOLD)))
}
