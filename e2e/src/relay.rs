//! An engine's gRPC, relayed. The data address that a caller names is replaced, so that pages travel through a
//! [`FaultProxy`](crate::FaultProxy), and the moments at which requests and first tokens pass are told.

use std::pin::Pin;
use std::time::Instant;

use anyhow::Result;
use futures::StreamExt;
use shoal_wire::FleetSecret;
use shoal_wire::rpc::engine_client::EngineClient;
use shoal_wire::rpc::engine_server::{Engine as Service, EngineServer};
use shoal_wire::rpc::generate_event::Event;
use shoal_wire::rpc::{
    AbortReply, AbortRequest, DrainReply, DrainRequest, EngineState, GenerateEvent, GenerateRequest,
    GetStateRequest, HelloReply, HelloRequest, PrefillEvent, PrefillRequest, SetRoleReply, SetRoleRequest,
    WatchEvent, WatchRequest,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A `Generate` call passed, or the first token of its answer.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The prompt's first token id, by which the caller knows its own request.
    pub key: u32,
    pub what: Passed,
    pub at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    Request,
    FirstToken,
}

#[derive(Debug)]
pub struct Relay {
    address: String,
    serve: JoinHandle<()>,
}

impl Relay {
    /// Serves on a free port. Calls go to the engine at `upstream`; its pages go to `data_address`.
    pub async fn start(upstream: &str, data_address: String, secret: FleetSecret) -> Result<Self> {
        // Nobody listens: moments are lost.
        Self::start_observed(upstream, data_address, secret, mpsc::unbounded_channel().0).await
    }

    /// As [`Relay::start`]; each [`Moment`] of a `Generate` call is sent to `moments`.
    pub async fn start_observed(
        upstream: &str,
        data_address: String,
        secret: FleetSecret,
        moments: mpsc::UnboundedSender<Moment>,
    ) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string();
        let channel = tonic::transport::Endpoint::new(format!("http://{upstream}"))?.connect_lazy();
        let limit = shoal_wire::limits::MAX_MESSAGE_BYTES;
        let upstream =
            EngineClient::new(channel).max_decoding_message_size(limit).max_encoding_message_size(limit);
        let service = EngineServer::new(Forward { upstream, data_address, secret, moments })
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        // Small messages leave at once, as the engine's own server sends them.
        let incoming = TcpListenerStream::new(listener).map(|stream| {
            let stream = stream?;
            stream.set_nodelay(true)?;
            std::io::Result::Ok(stream)
        });
        let serving = Server::builder().add_service(service).serve_with_incoming(incoming);
        // Ends with the test, which drops the relay.
        let serve = tokio::spawn(async move { drop(serving.await) });
        Ok(Self { address, serve })
    }

    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serve.abort();
    }
}

#[derive(Debug)]
struct Forward {
    upstream: EngineClient<Channel>,
    data_address: String,
    secret: FleetSecret,
    moments: mpsc::UnboundedSender<Moment>,
}

impl Forward {
    /// The same message, signed anew: metadata of a call does not travel on.
    fn sign<T>(&self, request: Request<T>) -> (EngineClient<Channel>, Request<T>) {
        (self.upstream.clone(), self.secret.sign(Request::new(request.into_inner())))
    }
}

fn boxed<T: Send + 'static>(reply: Response<tonic::Streaming<T>>) -> Response<Events<T>> {
    Response::new(Box::pin(reply.into_inner()))
}

#[tonic::async_trait]
impl Service for Forward {
    type GenerateStream = Events<GenerateEvent>;
    type PrefillStream = Events<PrefillEvent>;
    type WatchStream = Events<WatchEvent>;

    async fn prefill(
        &self,
        request: Request<PrefillRequest>,
    ) -> Result<Response<Self::PrefillStream>, Status> {
        let (mut upstream, mut request) = self.sign(request);
        request.get_mut().data_address.clone_from(&self.data_address);
        Ok(boxed(upstream.prefill(request).await?))
    }

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let (mut upstream, request) = self.sign(request);
        let key = request.get_ref().tokens.first().copied().unwrap_or_default();
        let moments = self.moments.clone();
        let tell = move |what| {
            // Nobody may be listening.
            let _ = moments.send(Moment { key, what, at: Instant::now() });
        };
        tell(Passed::Request);
        let mut told = false;
        let events = upstream.generate(request).await?.into_inner().inspect(move |event| {
            let is_token = matches!(event, Ok(GenerateEvent { event: Some(Event::Tokens(_)) }));
            if is_token && !std::mem::replace(&mut told, true) {
                tell(Passed::FirstToken);
            }
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (mut upstream, request) = self.sign(request);
        Ok(boxed(upstream.watch(request).await?))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<AbortReply>, Status> {
        let (mut upstream, request) = self.sign(request);
        upstream.abort(request).await
    }

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let (mut upstream, request) = self.sign(request);
        upstream.hello(request).await
    }

    async fn get_state(&self, request: Request<GetStateRequest>) -> Result<Response<EngineState>, Status> {
        let (mut upstream, request) = self.sign(request);
        upstream.get_state(request).await
    }

    async fn set_role(&self, request: Request<SetRoleRequest>) -> Result<Response<SetRoleReply>, Status> {
        let (mut upstream, request) = self.sign(request);
        upstream.set_role(request).await
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainReply>, Status> {
        let (mut upstream, request) = self.sign(request);
        upstream.drain(request).await
    }
}
