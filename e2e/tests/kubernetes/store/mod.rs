//! Where pods fetch models from: servers in the test's own process, at an address that pods reach.

mod bucket;
mod files;

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use hyper::header::RANGE;
use hyper::{Request, body::Incoming};
use tokio::net::TcpListener;

pub(crate) use bucket::Bucket;
pub(crate) use files::FileServer;

/// Requests for a whole file; lengths are asked for with a range of one byte, and the rest of a part with another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wholes(Arc<AtomicUsize>);

impl Wholes {
    fn note(&self, request: &Request<Incoming>) {
        if request.headers().get(RANGE).is_none_or(|range| range == "bytes=0-") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Listens where the cluster's nodes find this machine: at the end of the way that leads to the API server.
async fn listen() -> Result<TcpListener> {
    let config = kube::Config::infer().await?;
    let host = config.cluster_url.host().context("KUBECONFIG names no API server")?.to_owned();
    let port = config.cluster_url.port_u16().unwrap_or(443);
    // Connecting sends nothing; it asks for the way.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((host.as_str(), port))?;
    Ok(TcpListener::bind((socket.local_addr()?.ip(), 0)).await?)
}
