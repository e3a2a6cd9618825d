//! The part of a file that is there so far: appended to and hashed on a thread of its own, so that the disk
//! does not hold up the network.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::wanted::Checksum;

/// Chunks between network and disk, a few dozen KiB each.
const QUEUE: usize = 64;
const READ: usize = 1 << 20;

/// Written and hashed up to `length`.
#[derive(Debug)]
pub struct Part {
    file: File,
    path: PathBuf,
    hash: Sha256,
    length: u64,
}

impl Part {
    /// Opens what is there and reads it again, because only its hash can be gone on with. `reached` hears of
    /// every mebibyte. Blocks.
    ///
    /// # Errors
    /// When the file cannot be made or read.
    pub fn open(path: PathBuf, reached: impl Fn(u64)) -> io::Result<Self> {
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
        let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; READ]);
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(Self { file, path, hash, length });
            }
            hash.update(&buffer[..count]);
            length += count as u64;
            reached(length);
        }
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn checksum(&self) -> Checksum {
        Checksum(self.hash.clone().finalize().into())
    }

    /// Forgets everything that is there.
    ///
    /// # Errors
    /// When the file cannot be cut.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        (self.hash, self.length) = (Sha256::new(), 0);
        Ok(())
    }

    /// The file is whole: it gets its name, and the disk has it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn finish(self, name: &std::path::Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, name)?;
        // A name is in its folder, which the disk must have too.
        name.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// Appends what is sent, until the sender is dropped; `join` gives the part back.
    pub fn appending(self, reached: Arc<dyn Fn(u64) + Send + Sync>) -> Appending {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
        let thread = tokio::task::spawn_blocking(move || {
            let mut part = self;
            let mut outcome = Ok(());
            while let Some(bytes) = receiver.blocking_recv() {
                outcome = part.file.write_all(&bytes);
                if outcome.is_err() {
                    break;
                }
                part.hash.update(&bytes);
                part.length += bytes.len() as u64;
                reached(part.length);
            }
            (part, outcome)
        });
        Appending { sender, thread }
    }
}

#[derive(Debug)]
pub struct Appending {
    sender: mpsc::Sender<Bytes>,
    thread: JoinHandle<(Part, io::Result<()>)>,
}

impl Appending {
    /// False when the disk has refused; `join` says why.
    pub async fn send(&self, bytes: Bytes) -> bool {
        self.sender.send(bytes).await.is_ok()
    }

    /// The part as far as it came, and whether the disk took everything.
    ///
    /// # Errors
    /// When the thread was lost.
    pub async fn join(self) -> io::Result<(Part, io::Result<()>)> {
        drop(self.sender);
        self.thread.await.map_err(io::Error::other)
    }
}
