//! Engines that keep their state and do no work, one for each pod of an instance, all in this process.
//!
//! ```text
//! operator ──gRPC──> 10.245.1.7:7070 ─┐  one listener for all addresses of
//! operator ──gRPC──> 10.245.3.2:7070 ─┴─> the fake nodes' pods: `service`
//! API server ──watch of pods and fleet secrets──> who has which address: `pods`
//! ```
//!
//! For questions about the operator and of scale, where hundreds of real engines do not fit on a machine. They
//! answer the calls that an operator makes as `shoal-engine` does: only with the fleet's token, never to an epoch
//! older than the last one, and as a new process for each pod, also where a pod has the address of an earlier one.

mod pods;
mod service;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use kube::Client;
use shoal_wire::rpc::{EngineState, engine_server::EngineServer};
use tokio::task::JoinHandle;
use tonic::transport::{Server, server::TcpIncoming};

use pods::Pods;
use service::Service;

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
    let address = (Ipv4Addr::UNSPECIFIED, GRPC_PORT).into();
    let incoming = TcpIncoming::bind(address).with_context(|| format!("{address} is taken"))?;
    let pods = Arc::new(Pods::default());
    let server = Server::builder().add_service(EngineServer::new(Service::new(Arc::clone(&pods))));
    let [follow_pods, follow_secrets] = pods::watch(client, Arc::clone(&pods));
    let serve = async move {
        if let Err(error) = server.serve_with_incoming(incoming.with_nodelay(Some(true))).await {
            eprintln!("the engines' server ended: {error}");
        }
    };
    Ok(Engines { pods, tasks: [follow_pods, follow_secrets, tokio::spawn(serve)] })
}
