//! The engine's gRPC. Calls are authenticated before their message is read (`serve`), checked field by field
//! (`validate`), and then run in a file each.

mod control;
mod generate;
mod grammars;
mod peers;
mod prefill;
mod refusal;
mod remote;
mod replies;
mod running;
mod serve;
mod submit;
mod token;
mod validate;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use shoal_wire::limits::MAX_REQUEST_ID_BYTES;
use shoal_wire::rpc::engine_server::Engine;
use shoal_wire::rpc::{
    AbortReply, AbortRequest, DrainReply, DrainRequest, EngineState, GenerateEvent, GenerateRequest,
    GetStateRequest, HelloReply, HelloRequest, PrefillEvent, PrefillRequest, SetRoleReply, SetRoleRequest,
    WatchEvent, WatchRequest,
};
use tokio::sync::watch as flag;
use tonic::{Request, Response, Status};

use crate::instance::Instance;

pub use peers::PeerChannels;
pub use refusal::REASON;
pub use running::RunningRequests;
pub use serve::{Serving, serve};

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service; clones share one instance.
#[derive(Debug, Clone)]
pub struct EngineService {
    instance: Arc<Instance>,
    /// True once the process is about to end: streams without an end of their own stop.
    closing: flag::Receiver<bool>,
}

impl EngineService {
    pub fn new(instance: Arc<Instance>, closing: flag::Receiver<bool>) -> Self {
        Self { instance, closing }
    }
}

#[tonic::async_trait]
impl Engine for EngineService {
    type GenerateStream = Events<GenerateEvent>;
    type PrefillStream = Events<PrefillEvent>;
    type WatchStream = Events<WatchEvent>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let request = validate::generate(request.into_inner(), &self.instance)?;
        generate::start(Arc::clone(&self.instance), request).await.map(Response::new)
    }

    async fn prefill(
        &self,
        request: Request<PrefillRequest>,
    ) -> Result<Response<Self::PrefillStream>, Status> {
        let request = validate::prefill(request.into_inner(), &self.instance)?;
        prefill::start(Arc::clone(&self.instance), request).await.map(Response::new)
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<AbortReply>, Status> {
        let AbortRequest { request_id } = request.into_inner();
        if request_id.len() > MAX_REQUEST_ID_BYTES {
            return Err(validate::invalid("request_id", &"too long", "at most 64 bytes"));
        }
        let found = self.instance.running.abort(&request_id, &self.instance.handle);
        Ok(Response::new(AbortReply { found }))
    }

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let HelloRequest { fingerprint } = request.into_inner();
        if let Some(theirs) = fingerprint {
            refusal::check_fingerprint(&self.instance.identity.fingerprint, &theirs)?;
        }
        Ok(Response::new(self.instance.hello()))
    }

    async fn get_state(&self, request: Request<GetStateRequest>) -> Result<Response<EngineState>, Status> {
        let GetStateRequest {} = request.into_inner();
        Ok(Response::new(self.instance.state()))
    }

    async fn set_role(&self, request: Request<SetRoleRequest>) -> Result<Response<SetRoleReply>, Status> {
        control::set_role(&self.instance, request.into_inner()).await.map(Response::new)
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainReply>, Status> {
        control::drain(&self.instance, request.into_inner()).await.map(Response::new)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest {} = request.into_inner();
        Ok(Response::new(watch::start(Arc::clone(&self.instance), self.closing.clone()).await?))
    }
}
