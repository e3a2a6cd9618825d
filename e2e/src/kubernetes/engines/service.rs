//! What an operator asks of an engine, answered for the pod whose address was called.

use std::sync::Arc;

use futures::stream::BoxStream;
use shoal_wire::rpc::{
    AbortReply, AbortRequest, DrainReply, DrainRequest, EngineState, GenerateEvent, GenerateRequest,
    GetStateRequest, HelloReply, HelloRequest, PrefillEvent, PrefillRequest, Role, SetRoleReply,
    SetRoleRequest, WatchEvent, WatchRequest, engine_server,
};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use super::pods::{Engine, Pods};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Debug)]
pub(super) struct Service(Arc<Pods>);

impl Service {
    pub(super) fn new(pods: Arc<Pods>) -> Self {
        Self(pods)
    }

    /// The engine that was called, if the call carries its fleet's token.
    fn called<T>(&self, request: &Request<T>) -> Result<Arc<Engine>, Status> {
        let address = request.local_addr().ok_or_else(|| Status::internal("a call without an address"))?;
        let (engine, secret) = self.0.at(address.ip()).map_err(Status::unavailable)?;
        secret.verify(request)?;
        Ok(engine)
    }
}

/// One epoch may carry several calls; only an older one comes from somebody who was replaced.
fn accept(state: &mut EngineState, epoch: u64) -> Result<(), Status> {
    if epoch < state.epoch {
        let accepted = state.epoch;
        let mut status = Status::failed_precondition(format!(
            "epoch {epoch} is older than {accepted}, the last one accepted"
        ));
        status.metadata_mut().insert("shoal-reason", MetadataValue::from_static("epoch"));
        return Err(status);
    }
    state.epoch = epoch;
    Ok(())
}

fn no_work<T>() -> Answer<T> {
    Err(Status::unimplemented("this engine keeps its state and does no work"))
}

#[tonic::async_trait]
impl engine_server::Engine for Service {
    type GenerateStream = BoxStream<'static, Result<GenerateEvent, Status>>;
    type PrefillStream = BoxStream<'static, Result<PrefillEvent, Status>>;
    type WatchStream = BoxStream<'static, Result<WatchEvent, Status>>;

    async fn get_state(&self, request: Request<GetStateRequest>) -> Answer<EngineState> {
        let engine = self.called(&request)?;
        let state = engine.state.lock().clone();
        Ok(Response::new(state))
    }

    async fn set_role(&self, request: Request<SetRoleRequest>) -> Answer<SetRoleReply> {
        let engine = self.called(&request)?;
        let SetRoleRequest { role, epoch } = request.into_inner();
        if !matches!(Role::try_from(role), Ok(Role::Prefill | Role::Decode | Role::Mixed)) {
            return Err(Status::invalid_argument("role: must be ROLE_PREFILL, ROLE_DECODE or ROLE_MIXED"));
        }
        let mut state = engine.state.lock();
        accept(&mut state, epoch)?;
        state.role = role;
        Ok(Response::new(SetRoleReply { role, epoch, ..SetRoleReply::default() }))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Answer<DrainReply> {
        let engine = self.called(&request)?;
        let DrainRequest { undo, epoch } = request.into_inner();
        let mut state = engine.state.lock();
        accept(&mut state, epoch)?;
        state.draining = !undo;
        Ok(Response::new(DrainReply { in_flight: 0 }))
    }

    async fn generate(&self, _: Request<GenerateRequest>) -> Answer<Self::GenerateStream> {
        no_work()
    }

    async fn prefill(&self, _: Request<PrefillRequest>) -> Answer<Self::PrefillStream> {
        no_work()
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        no_work()
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Answer<AbortReply> {
        no_work()
    }

    async fn hello(&self, _: Request<HelloRequest>) -> Answer<HelloReply> {
        no_work()
    }
}
