//! One writer per file, also among pods that share a volume.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Held until dropped, and by the system no longer than the process lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of `name`, calling `waiting` once if somebody else has it. Blocks.
///
/// # Errors
/// When the folder cannot be written.
pub fn acquire(folder: &Path, name: &str, waiting: impl FnOnce()) -> io::Result<Lock> {
    let path: PathBuf = folder.join(format!(".{name}.lock"));
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            waiting();
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(Lock { _file: file })
}
