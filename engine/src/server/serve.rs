//! The listening gRPC server and its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_wire::limits::MAX_MESSAGE_BYTES;
use shoal_wire::rpc::engine_server::EngineServer;
use tokio::net::TcpListener;
use tokio::sync::watch as flag;
use tokio::task::JoinHandle;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::EngineService;
use crate::instance::Instance;

/// A peer that does not answer a ping within the timeout is gone, and its streams with it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Streams of one connection; a gateway has one connection for all its requests.
const MAX_STREAMS: u32 = 4096;
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// A running server.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    closing: flag::Sender<bool>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// Serves an instance, within mutual TLS if it has an identity. Calls without the fleet's token are refused before
/// their message is read.
pub fn serve(instance: Arc<Instance>, listener: TcpListener) -> io::Result<Serving> {
    let address = listener.local_addr()?;
    let (closing, closed) = flag::channel(false);
    let (secret, tls) = (instance.secret.clone(), instance.tls.clone());
    let service = EngineServer::new(EngineService::new(instance, closed.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let authenticated = InterceptedService::new(service, move |request: tonic::Request<()>| {
        secret.verify(&request).map(|()| request)
    });
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .add_service(authenticated);
    let mut closing_begins = closed;
    let until = async move {
        let _ = closing_begins.wait_for(|closing| *closing).await;
    };
    let task = if let Some(identity) = tls {
        tokio::spawn(router.serve_with_incoming_shutdown(identity.incoming(listener), until))
    } else {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(router.serve_with_incoming_shutdown(incoming, until))
    };
    Ok(Serving { address, closing, task })
}

impl Serving {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing new, lets open streams end for at most `patience`, then cuts them.
    pub async fn stop(self, patience: Duration) {
        let _ = self.closing.send(true);
        let mut task = self.task;
        if tokio::time::timeout(patience, &mut task).await.is_err() {
            task.abort();
        }
    }
}
