//! The connections of a client.

use std::{io, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use super::Identity;

/// A peer's machine that is gone is noticed also where no ping is sent.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A channel that connects when it is first used, and again after a loss: within TLS if there is an identity, and
/// then never without. The endpoint's connect timeout covers the handshake.
pub fn channel(endpoint: &Endpoint, identity: Option<&Arc<Identity>>) -> Channel {
    let Some(identity) = identity else { return endpoint.connect_lazy() };
    let identity = Arc::clone(identity);
    endpoint.connect_with_connector_lazy(tower::service_fn(move |uri| connect(Arc::clone(&identity), uri)))
}

pub(super) async fn connect(identity: Arc<Identity>, uri: Uri) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let name = identity.current.load().name.clone();
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no port"))?;
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    SockRef::from(&tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    let connector = TlsConnector::from(Arc::clone(&identity.client));
    Ok(TokioIo::new(connector.connect(name, tcp).await?))
}
