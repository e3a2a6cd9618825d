//! Read-only memory mapping of a whole file.
//!
//! The mapped bytes are treated as untrusted data, never as typed memory. A file that somebody shortens
//! while it is mapped raises SIGBUS on access: model files are replaced by renaming, not edited in place.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::CheckpointError;

#[derive(Debug)]
pub(crate) struct Mapping {
    path: PathBuf,
    bytes: Mmap,
}

impl Mapping {
    pub(crate) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = File::open(path).map_err(CheckpointError::io("open", path))?;
        // SAFETY: the mapping is private and read-only, and only `&[u8]` is made of it: any content is a
        // valid value. That nobody writes to a model file in use is the module's stated assumption.
        let bytes = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io("map", path))?;
        Ok(Self { path: path.to_path_buf(), bytes })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
