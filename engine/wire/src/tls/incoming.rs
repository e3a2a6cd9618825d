//! The connections of a server, once their peers have proved to be of the fleet.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream, stream::BoxStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::Identity;

/// Handshakes under way at once; further peers wait in the listener's queue.
const HANDSHAKES: usize = 256;
/// A handshake takes milliseconds; a peer that is slower than this gives its place up.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connections of a listener whose handshake succeeded.
pub struct Incoming(BoxStream<'static, io::Result<Accepted>>);

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Incoming(..)")
    }
}

impl Identity {
    /// Accepts from `listener` who has a certificate of the fleet, and nobody else.
    pub fn incoming(&self, listener: TcpListener) -> Incoming {
        let acceptor = self.acceptor();
        let accepted = stream::unfold(listener, async |listener| Some((listener.accept().await, listener)));
        let shaken = accepted.map(move |accepted| handshake(acceptor.clone(), accepted));
        let ready = shaken.buffer_unordered(HANDSHAKES);
        Incoming(ready.filter_map(|outcome| std::future::ready(outcome.transpose())).boxed())
    }

    /// One connection of a listener that serves several fleets; none if the peer is not of this one.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Option<Accepted>> {
        let peer = tcp.peer_addr()?;
        handshake(self.acceptor(), Ok((tcp, peer))).await
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }
}

/// None if the peer is not of the fleet: that is its trouble and not the server's.
async fn handshake(
    acceptor: TlsAcceptor,
    accepted: io::Result<(TcpStream, SocketAddr)>,
) -> io::Result<Option<Accepted>> {
    let (tcp, peer) = accepted?;
    let _ = tcp.set_nodelay(true);
    let shaken = tokio::time::timeout(PATIENCE, acceptor.accept(tcp)).await;
    match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => Ok(Some(Accepted(Box::new(stream)))),
        // Who only looks whether the port is open, as probes do.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => {
            tracing::warn!(%peer, %error, "a connection was refused");
            Ok(None)
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// One connection, with the peer's address for whoever asks for it.
#[derive(Debug)]
pub struct Accepted(Box<TlsStream<TcpStream>>);

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.0.get_ref().0.connect_info()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
