//! A proxy in front of a decode instance's data socket that knows frames and spoils them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use shoal_wire::frame::{GREETING_BYTES, HEADER_BYTES, PROOF_BYTES, PageHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

/// What happens to frames on their way. Frames are counted from 0 over all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Half of this frame is written, then both sides are closed. Later frames pass.
    Cut(u64),
    /// From this frame on nothing moves, and sockets stay open, until the fault changes.
    Stall(u64),
    /// One payload bit of this frame is flipped.
    Corrupt(u64),
    /// Every frame is written twice.
    Duplicate,
    /// Frames pass at this many bytes per second.
    Slow(u64),
}

#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    fault: watch::Sender<Fault>,
    frames: AtomicU64,
    /// The last frame, to be sent again when its transfer is long over.
    last: Mutex<Option<Vec<u8>>>,
    /// Writing end of the newest connection.
    newest: Mutex<Option<Arc<Mutex<OwnedWriteHalf>>>>,
}

impl FaultProxy {
    /// Listens on a free port and forwards to `upstream`, a decode instance's data address.
    pub async fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            fault: watch::Sender::new(Fault::None),
            frames: AtomicU64::new(0),
            last: Mutex::default(),
            newest: Mutex::default(),
        });
        let accept = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accept })
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes the fault and counts frames from 0 again.
    pub fn set(&self, fault: Fault) {
        self.shared.frames.store(0, Ordering::SeqCst);
        self.shared.fault.send_replace(fault);
    }

    /// Frames that came in since the fault was set.
    pub fn frames(&self) -> u64 {
        self.shared.frames.load(Ordering::SeqCst)
    }

    /// Sends the last frame once more, on the newest connection.
    pub async fn replay_last(&self) -> Result<()> {
        let frame = self.shared.last.lock().await.clone().context("no frame passed yet")?;
        let newest = self.shared.newest.lock().await.clone().context("no connection yet")?;
        newest.lock().await.write_all(&frame).await?;
        Ok(())
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// Connections live in the set, so they end with this task.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(carry(client, Arc::clone(&shared)));
    }
}

/// Errors end the connection: what a broken network would do.
async fn carry(client: TcpStream, shared: Arc<Shared>) -> Result<()> {
    let server = TcpStream::connect(&shared.upstream).await?;
    let (client_read, mut client_write) = client.into_split();
    let (mut server_read, server_write) = server.into_split();
    let server_write = Arc::new(Mutex::new(server_write));
    *shared.newest.lock().await = Some(Arc::clone(&server_write));
    tokio::select! {
        done = frames(client_read, &server_write, &shared) => done,
        copied = tokio::io::copy(&mut server_read, &mut client_write) => copied.map(drop).map_err(Into::into),
    }
}

async fn frames(mut from: OwnedReadHalf, to: &Mutex<OwnedWriteHalf>, shared: &Shared) -> Result<()> {
    // The prover's proof depends on the greeting of the other side, so the two cannot be read together.
    for bytes in [GREETING_BYTES, PROOF_BYTES] {
        let mut handshake = vec![0; bytes];
        from.read_exact(&mut handshake).await?;
        to.lock().await.write_all(&handshake).await?;
    }
    let mut faults = shared.fault.subscribe();
    loop {
        let mut frame = vec![0; HEADER_BYTES];
        from.read_exact(&mut frame).await?;
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&frame);
        let payload = PageHeader::decode(&header)?.payload_bytes as usize;
        frame.resize(HEADER_BYTES + payload, 0);
        from.read_exact(&mut frame[HEADER_BYTES..]).await?;
        let number = shared.frames.fetch_add(1, Ordering::SeqCst);
        let stalls = |fault: &Fault| matches!(*fault, Fault::Stall(from) if number >= from);
        faults.wait_for(|fault| !stalls(fault)).await?;
        let fault = *faults.borrow_and_update();
        write(frame, number, fault, to, shared).await?;
    }
}

async fn write(
    mut frame: Vec<u8>,
    number: u64,
    fault: Fault,
    to: &Mutex<OwnedWriteHalf>,
    shared: &Shared,
) -> Result<()> {
    *shared.last.lock().await = Some(frame.clone());
    let mut to = to.lock().await;
    match fault {
        Fault::Cut(at) if at == number => {
            to.write_all(&frame[..frame.len() / 2]).await?;
            to.shutdown().await?;
            anyhow::bail!("cut");
        }
        Fault::Corrupt(at) if at == number => frame[HEADER_BYTES + 7] ^= 0x10,
        Fault::Duplicate => to.write_all(&frame).await?,
        Fault::Slow(rate) => return trickle(&frame, rate, &mut to).await,
        Fault::None | Fault::Cut(_) | Fault::Stall(_) | Fault::Corrupt(_) => {}
    }
    to.write_all(&frame).await?;
    Ok(())
}

/// Ten pieces a second.
async fn trickle(frame: &[u8], rate: u64, to: &mut OwnedWriteHalf) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for piece in frame.chunks((rate / 10).max(1) as usize) {
        tick.tick().await;
        to.write_all(piece).await?;
    }
    Ok(())
}
