//! One file, from its source to its name.
//!
//! ```text
//! NAME there? ── checked before, or checked now ──────────────────────────────> done
//!      └── no ── lock ── NAME.part read again ── rest fetched, again and again ── checksum ── renamed ──> done
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    Class, lock, pace,
    part::Part,
    progress::{Phase, Progress},
    source::{Source, SourceError},
    wanted::{Checksum, Wanted, shown},
};

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("{path}: {error}")]
    Disk { path: String, error: io::Error },
    #[error(
        "{path} is there with SHA-256 {found}, wanted is {wanted}; remove it, or give this file another name"
    )]
    Taken { path: String, found: Checksum, wanted: Checksum },
    #[error("{url} has SHA-256 {found}, wanted is {wanted}")]
    Checksum { url: String, found: Checksum, wanted: Checksum },
    #[error("{url} ended after {got} of {length} bytes")]
    Short { url: String, got: u64, length: u64 },
}

impl FileError {
    pub fn class(&self) -> Class {
        match self {
            Self::Source(error) => error.class(),
            Self::Disk { .. } | Self::Short { .. } => Class::Transient,
            Self::Taken { .. } | Self::Checksum { .. } => Class::Invalid,
        }
    }

    fn pause(&self) -> Option<Duration> {
        match self {
            Self::Source(error) => error.pause(),
            _ => None,
        }
    }
}

/// One file on its way.
#[derive(Debug)]
pub struct Fetching {
    pub folder: PathBuf,
    pub wanted: Wanted,
    pub source: Source,
    pub files: Arc<[Progress]>,
    /// Its place in `files`.
    pub index: usize,
}

impl Fetching {
    /// Sees to it that the file is there, whole and checked.
    ///
    /// # Errors
    /// When another address, checksum, name or credential is needed, the disk refuses, or eight attempts in a
    /// row brought nothing.
    pub async fn run(self) -> Result<(), FileError> {
        let this = Arc::new(self);
        let begun = Arc::clone(&this);
        let Some((part, _lock)) = blocking(move || begun.begin()).await? else { return Ok(()) };
        let part = this.complete(part).await?;
        let name = this.path();
        let finished = blocking(move || {
            part.finish(&name).map_err(disk(&name))?;
            this.remember(&name).map_err(disk(&name))?;
            this.progress().finish();
            Ok(())
        });
        finished.await
    }

    fn progress(&self) -> &Progress {
        &self.files[self.index]
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&self.wanted.name)
    }

    /// What there is to go on with, under the file's lock; none if the file is there already. Blocks.
    fn begin(&self) -> Result<Option<(Part, lock::Lock)>, FileError> {
        fs::create_dir_all(&self.folder).map_err(disk(&self.folder))?;
        if self.is_there()? {
            return Ok(None);
        }
        let waiting = || self.progress().enter(Phase::Waiting);
        let lock = lock::acquire(&self.folder, &self.wanted.name, waiting).map_err(disk(&self.folder))?;
        // Whoever held the lock may have finished it.
        if self.is_there()? {
            return Ok(None);
        }
        self.progress().enter(Phase::Verifying);
        let path = self.folder.join(format!("{}.part", self.wanted.name));
        let part = Part::open(path.clone(), |bytes| self.progress().reached(bytes)).map_err(disk(&path))?;
        self.progress().enter(Phase::Downloading);
        Ok(Some((part, lock)))
    }

    /// Fetches until the whole is there and is what was wanted.
    async fn complete(self: &Arc<Self>, mut part: Part) -> Result<Part, FileError> {
        let length = self.progress().total();
        // A source that changed since the part was made gives a wrong whole; once it may begin anew.
        let mut resumed = part.length() > 0;
        let mut idle = 0;
        loop {
            // Also what is longer than was told: it may be the wanted one, and is never asked for without end.
            if part.length() >= length {
                match self.check(&part) {
                    Ok(()) => return Ok(part),
                    Err(error) if !resumed => return Err(error),
                    Err(error) => tracing::warn!(%error, "beginning anew"),
                }
                part.restart().map_err(disk(&self.path()))?;
                resumed = false;
            }
            let before = part.length();
            let (after, outcome) = self.attempt(part).await?;
            part = after;
            if part.length() > before {
                idle = 0;
            }
            let Err(error) = outcome else { continue };
            idle += 1;
            if error.class() == Class::Invalid || idle == pace::ATTEMPTS {
                return Err(error);
            }
            resumed = true;
            pace::wait(idle, error.pause(), &error).await;
        }
    }

    fn check(&self, part: &Part) -> Result<(), FileError> {
        let (found, wanted) = (part.checksum(), self.wanted.checksum);
        if found == wanted {
            return Ok(());
        }
        Err(FileError::Checksum { url: shown(&self.wanted.url), found, wanted })
    }

    /// One request for the rest; the part as far as it came.
    async fn attempt(self: &Arc<Self>, mut part: Part) -> Result<(Part, Result<(), FileError>), FileError> {
        let url = &self.wanted.url;
        let mut body = match self.source.from(url, part.length()).await {
            Ok(body) => body,
            Err(SourceError::BeyondEnd { .. }) if part.length() > 0 => {
                part.restart().map_err(disk(&self.path()))?;
                return Ok((part, Ok(())));
            }
            Err(error) => return Ok((part, Err(error.into()))),
        };
        if body.from == 0 && part.length() > 0 {
            part.restart().map_err(disk(&self.path()))?;
        }
        let heard = Arc::clone(self);
        let appending = part.appending(Arc::new(move |bytes| heard.progress().reached(bytes)));
        let ended = loop {
            match body.chunk().await {
                Ok(Some(bytes)) => {
                    if !appending.send(bytes).await {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(FileError::from(error)),
            }
        };
        let (part, written) = appending.join().await.map_err(disk(&self.path()))?;
        written.map_err(disk(&self.path()))?;
        let (got, length) = (part.length(), self.progress().total());
        let short = FileError::Short { url: shown(url), got, length };
        Ok((part, ended.and(if got < length { Err(short) } else { Ok(()) })))
    }

    /// Whether the file is there and is the wanted one.
    fn is_there(&self) -> Result<bool, FileError> {
        let path = self.path();
        let Ok(found) = fs::metadata(&path) else { return Ok(false) };
        if fs::read_to_string(self.note()).is_ok_and(|note| note == self.noted(&found)) {
            self.progress().finish();
            return Ok(true);
        }
        self.progress().enter(Phase::Verifying);
        let read = Part::open(path.clone(), |bytes| self.progress().reached(bytes)).map_err(disk(&path))?;
        let (found, wanted) = (read.checksum(), self.wanted.checksum);
        if found != wanted {
            return Err(FileError::Taken { path: path.display().to_string(), found, wanted });
        }
        self.remember(&path).map_err(disk(&path))?;
        self.progress().finish();
        Ok(true)
    }

    fn note(&self) -> PathBuf {
        self.folder.join(format!(".{}.sha256", self.wanted.name))
    }

    /// Notes that the file was checked, so that the next pod need not read all of it.
    fn remember(&self, path: &Path) -> io::Result<()> {
        fs::write(self.note(), self.noted(&fs::metadata(path)?))
    }

    /// Length and time are noted beside the checksum: a file that was changed since is read again.
    fn noted(&self, file: &fs::Metadata) -> String {
        let changed = file.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        format!("{} {} {}\n", self.wanted.checksum, file.len(), changed.unwrap_or_default().as_nanos())
    }
}

fn disk(path: &Path) -> impl Fn(io::Error) -> FileError {
    let path = path.display().to_string();
    move |error| FileError::Disk { path: path.clone(), error }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    let lost = |error| FileError::Disk { path: "a thread".to_owned(), error: io::Error::other(error) };
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}
