//! One `shoal up` per cluster and state directory.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::state_dir::ClusterDir;
use crate::failure::{Attempt, Failure};

/// `is_held` takes the lock for an instant; a second look tells that from a host that holds it.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(20);

/// Held until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(cluster: &ClusterDir) -> Result<Self, Failure> {
        let mut file = open(cluster)?;
        if !(0..TRIES).any(|_| exclusive(&file)) {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(Failure::conflict(format!(
                "cluster {:?} is already up (process {}); change it with: shoal apply -f FILE",
                cluster.name,
                holder.trim()
            )));
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        written.attempt(|| "cannot write the lock file".to_owned())?;
        Ok(Self { _file: file })
    }

    /// Whether some `shoal up` holds it.
    pub(crate) fn is_held(cluster: &ClusterDir) -> bool {
        let Ok(file) = open(cluster) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    }
}

/// Whether the lock was free; waits a little if not.
fn exclusive(file: &File) -> bool {
    let free = flock(file, FlockOperation::NonBlockingLockExclusive).is_ok();
    if !free {
        std::thread::sleep(PAUSE);
    }
    free
}

fn open(cluster: &ClusterDir) -> Result<File, Failure> {
    let path = cluster.path.join("lock");
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .attempt(|| format!("cannot open {}", path.display()))
}
