//! Follows one instance's Watch stream for as long as the instance is in the view.

use std::sync::Arc;
use std::time::Duration;

use shoal_wire::rpc::watch_event::Event;
use shoal_wire::rpc::{Snapshot, WatchEvent, WatchRequest};
use shoal_wire::watch::SequenceCheck;
use tokio::time::timeout;

use super::{Fleet, Instance};
use crate::route::random;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// An engine reports at least each second; one that is silent for this long is asked again on a new stream.
const SILENCE: Duration = Duration::from_secs(20);
const SUBSCRIBE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum Break {
    #[error("the Watch stream broke: {0}")]
    Lost(#[from] tonic::Status),
    #[error("the Watch stream ended")]
    Ended,
    #[error("the instance was silent for {SILENCE:?}")]
    Silent,
    #[error("an event is missing before number {0}")]
    Gap(u64),
    #[error("the first event is no snapshot with state and identity")]
    NoSnapshot,
}

pub(super) async fn follow(fleet: Arc<Fleet>, instance: Arc<Instance>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let was_live = instance.live().is_some();
        let Err(cause) = watch(&fleet, &instance).await;
        let heard = instance.live().is_some();
        if heard && matches!(cause, Break::Gap(_)) {
            fleet.metrics.resubscriptions.with_label_values(&["gap"]).inc();
            continue;
        }
        if heard || was_live {
            tracing::warn!(instance = instance.name(), %cause, "lost sight of an instance");
            fleet.metrics.resubscriptions.with_label_values(&["lost"]).inc();
            pause = FIRST_PAUSE;
        } else {
            tracing::debug!(instance = instance.name(), %cause, "instance not reachable yet");
        }
        instance.lost();
        fleet.bump();
        tokio::time::sleep(pause + Duration::from_millis(random::below(20) as u64)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn watch(fleet: &Fleet, instance: &Instance) -> Result<std::convert::Infallible, Break> {
    let mut client = instance.client();
    let call = client.watch(instance.sign(WatchRequest {}));
    let mut stream = timeout(SUBSCRIBE, call).await.map_err(|_| Break::Silent)??.into_inner();
    let mut sequence = SequenceCheck::default();
    let mut started = false;
    loop {
        let event = timeout(SILENCE, stream.message()).await.map_err(|_| Break::Silent)??;
        let WatchEvent { seq, event } = event.ok_or(Break::Ended)?;
        if !sequence.follows(seq) {
            return Err(Break::Gap(seq));
        }
        instance.touch();
        match event {
            Some(Event::Snapshot(Snapshot { state: Some(state), hello: Some(hello), pages })) => {
                tracing::info!(
                    instance = instance.name(),
                    incarnation = hello.incarnation,
                    role = state.role().as_str_name(),
                    "instance is there"
                );
                instance.became(hello, state, &pages);
                started = true;
                fleet.bump();
            }
            _ if !started => return Err(Break::NoSnapshot),
            Some(Event::State(state)) => {
                if admits_differently(instance, &state) {
                    instance.reported(state);
                    fleet.bump();
                } else {
                    instance.reported(state);
                }
            }
            Some(Event::KvStored(stored)) => instance.stored(&stored.pages),
            Some(Event::KvRemoved(removed)) => instance.removed(&removed.pages),
            Some(Event::Snapshot(_)) => return Err(Break::NoSnapshot),
            None => {}
        }
    }
}

/// Role and draining decide who may be picked; requests that wait for somebody are told only of those.
fn admits_differently(instance: &Instance, new: &shoal_wire::rpc::EngineState) -> bool {
    instance.live().is_none_or(|live| live.state.role != new.role || live.state.draining != new.draining)
}
