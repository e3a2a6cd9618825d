//! A TCP proxy inside the test process that breaks what passes through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the bytes that the client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Both ends are closed after this many bytes.
    Cut(usize),
    /// Nothing more passes after this many bytes; both ends stay open.
    Stall(usize),
    /// One bit of this byte is turned.
    Flip(usize),
}

pub(crate) struct Proxy {
    pub(crate) address: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    target: watch::Sender<Option<String>>,
    fault: Fault,
    /// Connections that the fault still befalls; the rest pass.
    left: AtomicUsize,
    struck: AtomicBool,
}

impl Proxy {
    /// The target is set later, because an instance must know its advertised address when it starts.
    pub(crate) async fn start(fault: Fault, connections: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let shared = Arc::new(Shared {
            target: watch::channel(None).0,
            fault,
            left: AtomicUsize::new(connections),
            struck: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, Arc::clone(&accepting)));
            }
        });
        Self { address, shared, task }
    }

    pub(crate) fn to(&self, target: String) {
        self.shared.target.send_replace(Some(target));
    }

    /// True once the fault happened.
    pub(crate) fn struck(&self) -> bool {
        self.shared.struck.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut target = shared.target.subscribe();
    let target = target.wait_for(Option::is_some).await.map_err(std::io::Error::other)?.clone();
    let server = TcpStream::connect(target.unwrap_or_default()).await?;
    let left = &shared.left;
    let befallen = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    let fault = if befallen { shared.fault } else { Fault::None };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut buffer = vec![0; 16 << 10];
    let mut seen = 0;
    loop {
        let limit = match fault {
            Fault::Cut(at) | Fault::Stall(at) => buffer.len().min(at - seen),
            Fault::None | Fault::Flip(_) => buffer.len(),
        };
        if limit == 0 {
            shared.struck.store(true, Ordering::SeqCst);
            if matches!(fault, Fault::Stall(_)) {
                std::future::pending::<()>().await;
            }
            back.abort();
            return Ok(());
        }
        let count = from_client.read(&mut buffer[..limit]).await?;
        if count == 0 {
            return Ok(());
        }
        if let Fault::Flip(at) = fault
            && (seen..seen + count).contains(&at)
        {
            buffer[at - seen] ^= 4;
            shared.struck.store(true, Ordering::SeqCst);
        }
        seen += count;
        to_server.write_all(&buffer[..count]).await?;
    }
}
