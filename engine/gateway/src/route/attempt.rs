//! One call of `Generate` on one instance.

use std::sync::Arc;
use std::time::Duration;

use shoal_wire::rpc::{AbortRequest, GenerateEvent, GenerateRequest};
use tonic::{Status, Streaming};

use super::Chosen;
use crate::fleet::{InFlight, Instance};

const ABORT_PATIENCE: Duration = Duration::from_secs(1);

/// Dropping it before its end stops the work: the stream is reset, and `Abort` is sent in case the reset is
/// late or lost.
#[derive(Debug)]
pub(super) struct Attempt {
    pub chosen: Chosen,
    /// Some event arrived: the instance has taken the request.
    pub accepted: bool,
    pub done: bool,
    request_id: String,
    stream: Streaming<GenerateEvent>,
    _in_flight: InFlight,
}

impl Attempt {
    /// Calls the instance. Ends when the response's head arrived.
    pub(super) async fn open(chosen: Chosen, request: GenerateRequest) -> Result<Self, (Chosen, Status)> {
        let request_id = request.request_id.clone();
        let local = chosen.targets.is_empty();
        let in_flight = chosen.instance.begin(if local { chosen.uncached } else { 0 });
        if let Some(best) = chosen.prefill.first() {
            best.charge(1, chosen.uncached);
        }
        let mut client = chosen.instance.client();
        let reply = client.generate(chosen.instance.sign(request)).await;
        match reply {
            Ok(reply) => Ok(Self {
                chosen,
                accepted: false,
                done: false,
                request_id,
                stream: reply.into_inner(),
                _in_flight: in_flight,
            }),
            Err(status) => Err((chosen, status)),
        }
    }

    /// The next event. Cancel safe.
    pub(super) async fn event(&mut self) -> Result<Option<GenerateEvent>, Status> {
        self.stream.message().await
    }

    pub(super) fn instance(&self) -> &Arc<Instance> {
        &self.chosen.instance
    }

    pub(super) fn incarnation(&self) -> &str {
        &self.chosen.incarnation
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut client = self.chosen.instance.client();
        let request = AbortRequest { request_id: std::mem::take(&mut self.request_id) };
        let request = self.chosen.instance.sign(request);
        runtime.spawn(async move {
            // The reset of the stream does the same; an instance that is gone has nothing to abort.
            let _ = tokio::time::timeout(ABORT_PATIENCE, client.abort(request)).await;
        });
    }
}
