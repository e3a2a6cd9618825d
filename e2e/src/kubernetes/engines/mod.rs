//! Engines that keep their state and do no work, one for each pod of an instance, all in this process.
//!
//! ```text
//! operator ──gRPC──> 10.245.1.7:7070 ─┐  one listener for all addresses of
//! operator ──gRPC──> 10.245.3.2:7070 ─┴─> the fake nodes' pods: `service`
//! API server ──watch of pods and secrets──> who has which address and certificate: `pods`
//! ```
//!
//! For questions about the operator and of scale, where hundreds of real engines do not fit on a machine. They
//! answer the calls that an operator makes as `shoal-engine` does: only with the fleet's token, never to an epoch
//! older than the last one, and as a new process for each pod, also where a pod has the address of an earlier one.

mod pods;
mod service;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt as _, stream};
use kube::Client;
use shoal_wire::rpc::{EngineState, engine_server::EngineServer};
use shoal_wire::tls::Accepted;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::transport::Server;

use pods::Pods;
use service::Service;

/// Handshakes under way at once.
const HANDSHAKES: usize = 512;
/// Port of an engine's gRPC in its pod.
const GRPC_PORT: u16 = 7070;

/// They run until this is dropped.
#[derive(Debug)]
pub struct Engines {
    pods: Arc<Pods>,
    tasks: [JoinHandle<()>; 3],
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Engines {
    /// What the engine at that address says of itself.
    pub fn state(&self, address: IpAddr) -> Option<EngineState> {
        let engine = self.pods.by_address(address)?;
        let state = engine.state.lock();
        Some(state.clone())
    }
}

/// Answers at the addresses of all instances' pods. `scripts/cluster.sh fake-nodes` leads those of its nodes' pods
/// to this machine itself.
pub async fn start(client: Client) -> Result<Engines> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, GRPC_PORT));
    let listener = TcpListener::bind(address).await.with_context(|| format!("{address} is taken"))?;
    let pods = Arc::new(Pods::default());
    let incoming = incoming(listener, Arc::clone(&pods));
    let server = Server::builder().add_service(EngineServer::new(Service::new(Arc::clone(&pods))));
    let [follow_pods, follow_secrets] = pods::watch(client, Arc::clone(&pods));
    let serve = async move {
        if let Err(error) = server.serve_with_incoming(incoming).await {
            eprintln!("the engines' server ended: {error}");
        }
    };
    Ok(Engines { pods, tasks: [follow_pods, follow_secrets, tokio::spawn(serve)] })
}

/// Connections to the addresses of pods, each within TLS as its fleet; others are closed.
fn incoming(listener: TcpListener, pods: Arc<Pods>) -> impl Stream<Item = std::io::Result<Accepted>> {
    let accepted = stream::unfold(listener, async |listener| Some((listener.accept().await, listener)));
    let shaken = accepted.map(move |accepted| {
        let pods = Arc::clone(&pods);
        async move {
            let (tcp, _) = accepted.ok()?;
            shake(tcp, &pods).await
        }
    });
    shaken.buffer_unordered(HANDSHAKES).filter_map(|shaken| std::future::ready(shaken.map(Ok)))
}

async fn shake(tcp: TcpStream, pods: &Pods) -> Option<Accepted> {
    let identity = pods.identity(tcp.local_addr().ok()?.ip())?;
    identity.accept(tcp).await.ok()?
}
