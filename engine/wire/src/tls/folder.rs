//! An identity from a folder, as a mounted `kubernetes.io/tls` Secret is one, and after each change of it.
//!
//! The kubelet exchanges all files at once, behind a link; a look in between finds files that do not fit together
//! and leaves things as they are until the next one. Contents are compared, not times, which a copy may keep.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use super::{Identity, Material, TlsError};

/// Bytes of one file: a dozen certificates.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Between looks at the folder.
const PERIOD: Duration = Duration::from_secs(2);

impl Material {
    /// Reads `ca.crt`, `tls.crt` and `tls.key`.
    pub fn read(folder: &Path) -> Result<Self, TlsError> {
        let file = |name| read(&folder.join(name));
        Ok(Self { authorities: file("ca.crt")?, certificate: file("tls.crt")?, key: file("tls.key")? })
    }
}

impl Identity {
    /// Reads a folder and follows it for as long as the identity is in use. Must be called inside a tokio runtime.
    pub fn load(folder: &Path) -> Result<Arc<Self>, TlsError> {
        let material = Material::read(folder)?;
        let identity = Self::new(&material)?;
        tracing::info!(folder = %folder.display(), fleet = identity.name(), "gRPC is within mutual TLS");
        tokio::spawn(follow(Arc::downgrade(&identity), folder.to_owned(), material));
        Ok(identity)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let shown = || path.display().to_string();
    let failed = |source| TlsError::Read { path: shown(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(TlsError::TooLong { path: shown(), limit: MAX_FILE_BYTES });
    }
    std::fs::read(path).map_err(failed)
}

async fn follow(identity: Weak<Identity>, folder: PathBuf, mut used: Material) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let place = folder.clone();
        let found = tokio::task::spawn_blocking(move || Material::read(&place)).await;
        let Some(identity) = identity.upgrade() else { return };
        let outcome = match found {
            Ok(Ok(found)) if found == used => Ok(()),
            Ok(Ok(found)) => identity.replace(&found).map(|()| {
                tracing::info!(folder = %folder.display(), "new certificates are in use");
                used = found;
            }),
            Ok(Err(error)) => Err(error),
            // The runtime ends.
            Err(_) => return,
        };
        // Once per trouble: it is looked at every few seconds.
        let trouble = outcome.err().map(|error| error.to_string()).unwrap_or_default();
        if !trouble.is_empty() && trouble != told {
            tracing::warn!(folder = %folder.display(), trouble, "the certificates in use stay");
        }
        told = trouble;
    }
}
