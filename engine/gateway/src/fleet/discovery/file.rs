//! A file that whoever started the engines keeps, replaced atomically and polled here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::{Discovery, Placement, check};
use crate::metrics::Metrics;

/// How often the file is looked at.
const PERIOD: Duration = Duration::from_millis(50);
const MAX_FILE_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path} has {bytes} bytes; at most {MAX_FILE_BYTES} are read")]
    TooLarge { path: String, bytes: u64 },
    #[error("{path} is not an instance list: {source}")]
    Parse { path: String, source: serde_json::Error },
    #[error("{path}: {message}")]
    Content { path: String, message: String },
}

#[derive(Deserialize)]
struct InstanceFile {
    instances: Vec<Placement>,
}

/// `{"instances": [{"name", "grpc"}]}`.
#[derive(Debug)]
pub struct FileDiscovery {
    path: PathBuf,
    metrics: Arc<Metrics>,
    seen: Option<Stamp>,
    current: Option<Vec<Placement>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl FileDiscovery {
    pub fn new(path: PathBuf, metrics: Arc<Metrics>) -> Self {
        Self { path, metrics, seen: None, current: None }
    }

    /// A view if the file changed and is good; a bad file is reported once and otherwise left alone.
    fn look(&mut self) -> Option<Vec<Placement>> {
        let stamp = stamp(&self.path);
        if stamp.is_none() || stamp == self.seen {
            return None;
        }
        self.seen = stamp;
        match read(&self.path) {
            Ok(view) if self.current.as_ref() == Some(&view) => None,
            Ok(view) => {
                self.current = Some(view.clone());
                Some(view)
            }
            Err(error) => {
                self.metrics.discovery_errors.inc();
                tracing::warn!(%error, "the instance list is unusable; the last good one stays in use");
                None
            }
        }
    }
}

impl Discovery for FileDiscovery {
    async fn changed(&mut self) -> Vec<Placement> {
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Some(view) = self.look() {
                return view;
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len(), inode: metadata.ino() })
}

fn read(path: &Path) -> Result<Vec<Placement>, FileError> {
    let shown = || path.display().to_string();
    let failed = |source| FileError::Read { path: shown(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(FileError::TooLarge { path: shown(), bytes });
    }
    let text = std::fs::read(path).map_err(failed)?;
    let file: InstanceFile =
        serde_json::from_slice(&text).map_err(|source| FileError::Parse { path: shown(), source })?;
    check(&file.instances).map_err(|message| FileError::Content { path: shown(), message })?;
    Ok(file.instances)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replace(path: &Path, content: &str) {
        let new = path.with_extension("new");
        std::fs::write(&new, content).expect("write");
        std::fs::rename(new, path).expect("rename");
    }

    fn source(directory: &tempfile::TempDir) -> (FileDiscovery, PathBuf) {
        let path = directory.path().join("instances.json");
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        (FileDiscovery::new(path.clone(), metrics), path)
    }

    #[test]
    fn a_changed_file_gives_a_new_view_and_an_unchanged_one_gives_none() {
        let directory = tempfile::tempdir().expect("tempdir");
        let (mut discovery, path) = source(&directory);
        assert_eq!(discovery.look(), None, "no file yet");
        replace(&path, r#"{"instances":[{"name":"a","grpc":"127.0.0.1:1"}]}"#);
        assert_eq!(discovery.look().map(|v| v.len()), Some(1));
        assert_eq!(discovery.look(), None);
        replace(&path, r#"{"instances":[]}"#);
        assert_eq!(discovery.look(), Some(vec![]), "an empty list is a good list");
    }

    #[test]
    fn a_bad_or_vanished_file_leaves_the_last_good_view() {
        let directory = tempfile::tempdir().expect("tempdir");
        let (mut discovery, path) = source(&directory);
        replace(&path, r#"{"instances":[{"name":"a","grpc":"127.0.0.1:1"}]}"#);
        discovery.look().expect("a view");
        for bad in [
            "",
            "{",
            "[]",
            r#"{"instances":[{"name":"a"}]}"#,
            r#"{"instances":[{"name":"","grpc":"h:1"}]}"#,
            r#"{"instances":[{"name":"a","grpc":"h"}]}"#,
            r#"{"instances":[{"name":"a","grpc":"h:1"},{"name":"a","grpc":"h:2"}]}"#,
        ] {
            replace(&path, bad);
            assert_eq!(discovery.look(), None, "{bad}");
        }
        assert_eq!(discovery.metrics.discovery_errors.get(), 7);
        std::fs::remove_file(&path).expect("remove");
        assert_eq!(discovery.look(), None);
    }
}
