//! All files of a model.

use std::{path::Path, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use url::Url;

use crate::{
    Class,
    file::{Fetching, FileError},
    pace,
    progress::Progress,
    source::{Source, SourceError},
    wanted::Wanted,
};

/// Sizes asked for together.
const SIZES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{name}: {error}")]
    File { name: String, error: FileError },
    #[error("{name}: {error}")]
    Size { name: String, error: SourceError },
    #[error("{folder} has room for {room} bytes, and {needed} more are needed")]
    NoRoom { folder: String, room: u64, needed: u64 },
}

impl FetchError {
    pub fn class(&self) -> Class {
        match self {
            Self::File { error, .. } => error.class(),
            Self::Size { error, .. } => error.class(),
            Self::NoRoom { .. } => Class::Transient,
        }
    }
}

/// Asks how long every file is. A wrong address or credential shows here, before anything was fetched.
///
/// # Errors
/// When a source does not answer or does not tell.
pub async fn sizes(wanted: &[Wanted], source: &Source) -> Result<Arc<[Progress]>, FetchError> {
    let size = |file: &Wanted| {
        let (source, name, url) = (source.clone(), file.name.clone(), file.url.clone());
        async move { length(&source, &url).await.map_err(|error| FetchError::Size { name, error }) }
    };
    let asked: Vec<_> = wanted.iter().map(size).collect();
    let totals: Vec<u64> = stream::iter(asked).buffered(SIZES).try_collect().await?;
    Ok(totals.into_iter().map(Progress::of).collect())
}

async fn length(source: &Source, url: &Url) -> Result<u64, SourceError> {
    let mut attempts = 0;
    loop {
        let error = match source.length(url).await {
            Ok(length) => return Ok(length),
            Err(error) => error,
        };
        attempts += 1;
        if error.class() == Class::Invalid || attempts == pace::ATTEMPTS {
            return Err(error);
        }
        pace::wait(attempts, error.pause(), &error).await;
    }
}

/// Refuses to begin what the volume cannot hold; what is there already counts.
///
/// # Errors
/// When there is too little room.
pub fn room(folder: &Path, wanted: &[Wanted], files: &[Progress]) -> Result<(), FetchError> {
    let there = |file: &Wanted| {
        let part = format!("{}.part", file.name);
        let length = |name: &str| std::fs::metadata(folder.join(name)).map_or(0, |found| found.len());
        length(&file.name).max(length(&part))
    };
    let missing = wanted.iter().zip(files).map(|(file, size)| size.total().saturating_sub(there(file)));
    let needed: u64 = missing.sum();
    // A volume that does not tell is found out by writing to it.
    let Ok(volume) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let room = volume.f_bavail.saturating_mul(volume.f_frsize);
    if needed > room {
        return Err(FetchError::NoRoom { folder: folder.display().to_string(), room, needed });
    }
    Ok(())
}

/// Brings every file, `parallel` at a time. What is whole stays, whatever happens to the others.
///
/// # Errors
/// The first failure that trying again here does not mend.
pub async fn fetch(
    folder: &Path,
    wanted: &[Wanted],
    source: &Source,
    files: &Arc<[Progress]>,
    parallel: usize,
) -> Result<(), FetchError> {
    let one = |(index, file): (usize, &Wanted)| {
        let fetching = Fetching {
            folder: folder.to_owned(),
            wanted: file.clone(),
            source: source.clone(),
            files: Arc::clone(files),
            index,
        };
        let name = file.name.clone();
        async move { fetching.run().await.map_err(|error| FetchError::File { name, error }) }
    };
    let all: Vec<_> = wanted.iter().enumerate().map(one).collect();
    stream::iter(all).buffer_unordered(parallel).try_collect().await
}
