//! An engine that has a state and does no work: enough to be asked, given a role and drained.

use std::{net::SocketAddr, sync::Arc};

use futures::stream::BoxStream;
use parking_lot::Mutex;
use shoal_wire::{
    FleetSecret,
    rpc::{
        AbortReply, AbortRequest, DrainReply, DrainRequest, EngineState, GenerateEvent, GenerateRequest,
        GetStateRequest, HelloReply, HelloRequest, PrefillEvent, PrefillRequest, SetRoleReply,
        SetRoleRequest, WatchEvent, WatchRequest,
        engine_server::{Engine, EngineServer},
    },
    tls::{Identity, Material},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Debug)]
struct FakeEngine {
    state: Arc<Mutex<EngineState>>,
    secret: FleetSecret,
}

/// A running fake; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) state: Arc<Mutex<EngineState>>,
    serving: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Serves as the engine of the pod of that name, at that address; within TLS if it has material for that.
pub(super) async fn start(
    pod: &str,
    address: SocketAddr,
    secret: FleetSecret,
    tls: Option<&Material>,
) -> Running {
    let role = i32::from(shoal_wire::rpc::Role::Mixed);
    let state = EngineState { instance: pod.to_owned(), role, ..EngineState::default() };
    let state = Arc::new(Mutex::new(state));
    let engine = FakeEngine { state: Arc::clone(&state), secret };
    let listener = TcpListener::bind(address).await.unwrap();
    let server = tonic::transport::Server::builder().add_service(EngineServer::new(engine));
    let serving = if let Some(material) = tls {
        let incoming = Identity::new(material).unwrap().incoming(listener);
        tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() })
    } else {
        let incoming = TcpIncoming::from(listener);
        tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() })
    };
    Running { state, serving }
}

#[tonic::async_trait]
impl Engine for FakeEngine {
    type GenerateStream = BoxStream<'static, Result<GenerateEvent, Status>>;
    type PrefillStream = BoxStream<'static, Result<PrefillEvent, Status>>;
    type WatchStream = BoxStream<'static, Result<WatchEvent, Status>>;

    async fn get_state(&self, request: Request<GetStateRequest>) -> Answer<EngineState> {
        self.secret.verify(&request)?;
        Ok(Response::new(self.state.lock().clone()))
    }

    async fn set_role(&self, request: Request<SetRoleRequest>) -> Answer<SetRoleReply> {
        self.secret.verify(&request)?;
        let SetRoleRequest { role, epoch } = request.into_inner();
        let mut state = self.state.lock();
        (state.role, state.epoch) = (role, epoch);
        Ok(Response::new(SetRoleReply { role, epoch, ..SetRoleReply::default() }))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Answer<DrainReply> {
        self.secret.verify(&request)?;
        let DrainRequest { undo, epoch } = request.into_inner();
        let mut state = self.state.lock();
        (state.draining, state.epoch) = (!undo, epoch);
        Ok(Response::new(DrainReply::default()))
    }

    async fn generate(&self, _: Request<GenerateRequest>) -> Answer<Self::GenerateStream> {
        Err(Status::unimplemented("no work"))
    }

    async fn prefill(&self, _: Request<PrefillRequest>) -> Answer<Self::PrefillStream> {
        Err(Status::unimplemented("no work"))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        Err(Status::unimplemented("no work"))
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Answer<AbortReply> {
        Err(Status::unimplemented("no work"))
    }

    async fn hello(&self, _: Request<HelloRequest>) -> Answer<HelloReply> {
        Err(Status::unimplemented("no work"))
    }
}
