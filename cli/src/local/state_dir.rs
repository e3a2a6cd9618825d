//! The directory that plays the part of the API server.
//!
//! ```text
//! clusters/<name>/spec.yaml            what is asked for: `apply` writes it, `up` reads it
//!                 status.yaml          what is true: `up` writes it, only when it changed
//!                 instances/<id>.json  one record per engine process
//!                 gateway.json         the gateway's record
//!                 instances.json       what the gateway may call
//!                 run/<id>.ready       written by each process when it listens
//!                 logs/<id>.log        its output
//!                 secret               the fleet's secret, mode 0600
//!                 epoch                rises with each `up`: engines refuse calls of an older one
//!                 lock                 held by `up`
//! ```

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use shoal_crds::{ServingCluster, ServingClusterStatus, time_from_unix};

use super::{files, record::Record};
use crate::failure::{Attempt, Failure};

#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

/// The present moment. Its only use outside this module is `up`'s loop.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

impl StateDir {
    pub(crate) fn open(given: Option<&Path>) -> Result<Self, Failure> {
        let path = match given {
            Some(path) => std::path::absolute(path).attempt(|| format!("cannot use {}", path.display()))?,
            None => default_path()?,
        };
        Ok(Self(path))
    }

    pub(crate) fn cluster(&self, name: &str) -> ClusterDir {
        ClusterDir { path: self.0.join("clusters").join(name), name: name.to_owned() }
    }

    /// Every cluster that has a spec, by name.
    pub(crate) fn clusters(&self) -> Result<Vec<ClusterDir>, Failure> {
        let folder = self.0.join("clusters");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::failed(format!("cannot list {}: {error}", folder.display()))),
        };
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names
            .iter()
            .map(|name| self.cluster(name))
            .filter(|cluster| cluster.spec_path().exists())
            .collect())
    }

    /// The cluster of this name; without one, the only cluster there is.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<ClusterDir, Failure> {
        let mut clusters = self.clusters()?;
        let names = clusters.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>().join(", ");
        let Some(name) = name else {
            return match clusters.len() {
                0 => Err(Failure::not_found(
                    "no cluster is known here; start one with: shoal up -f cluster.yaml",
                )),
                1 => Ok(clusters.remove(0)),
                _ => Err(Failure::invalid(format!("several clusters are known; name one of: {names}"))),
            };
        };
        let found = clusters.iter().find(|cluster| cluster.name == name).cloned();
        let known =
            if names.is_empty() { "none is known here".to_owned() } else { format!("known: {names}") };
        found.ok_or_else(|| Failure::not_found(format!("there is no cluster {name:?}; {known}")))
    }
}

fn default_path() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("shoal"))
        .ok_or_else(|| Failure::invalid("neither XDG_STATE_HOME nor HOME is set; name a --state-dir"))
}

/// One cluster's part of the directory.
#[derive(Debug, Clone)]
pub(crate) struct ClusterDir {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
}

impl ClusterDir {
    pub(crate) fn spec_path(&self) -> PathBuf {
        self.path.join("spec.yaml")
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.path.join("logs").join(format!("{id}.log"))
    }

    pub(super) fn run_dir(&self) -> PathBuf {
        self.path.join("run")
    }

    pub(super) fn ready_path(&self, id: &str) -> PathBuf {
        self.run_dir().join(format!("{id}.ready"))
    }

    pub(super) fn instances_path(&self) -> PathBuf {
        self.path.join("instances.json")
    }

    pub(super) fn secret_path(&self) -> PathBuf {
        self.path.join("secret")
    }

    /// Makes the folders, closed to other users: the secret and prompts in logs are nobody else's.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        for folder in ["instances", "run", "logs"] {
            let path = self.path.join(folder);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .attempt(|| format!("cannot create {}", path.display()))?;
        }
        Ok(())
    }

    pub(crate) fn spec(&self) -> Result<Option<ServingCluster>, Failure> {
        let path = self.spec_path();
        let bytes = files::read(&path).attempt(|| format!("cannot read {}", path.display()))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let cluster = shoal_crds::read_unchecked(&String::from_utf8_lossy(&bytes))
            .map_err(|error| Failure::invalid(format!("{}: {error}", path.display())))?;
        Ok(Some(cluster))
    }

    pub(crate) fn write_spec(&self, cluster: &ServingCluster) -> Result<(), Failure> {
        let text = shoal_crds::write(cluster).attempt(|| "cannot write the spec".to_owned())?;
        files::replace(&self.spec_path(), text.as_bytes())
            .attempt(|| format!("cannot write {}", self.spec_path().display()))
    }

    /// Stores what was applied: a new generation if the spec differs. True if it does.
    pub(crate) fn store(&self, mut cluster: ServingCluster) -> Result<bool, Failure> {
        self.create()?;
        let old = self.spec()?.filter(|old| old.metadata.deletion_timestamp.is_none());
        let changed = old.as_ref().is_none_or(|old| old.spec != cluster.spec);
        let previous = old.as_ref().and_then(|old| old.metadata.generation).unwrap_or(0);
        cluster.metadata.generation = Some(previous + i64::from(changed));
        cluster.metadata.creation_timestamp = old
            .and_then(|old| old.metadata.creation_timestamp)
            .or_else(|| Some(time_from_unix(now().as_second())));
        cluster.status = None;
        self.write_spec(&cluster)?;
        Ok(changed)
    }

    pub(crate) fn status(&self) -> Option<ServingClusterStatus> {
        let bytes = files::read(&self.path.join("status.yaml")).ok()??;
        let document: serde_json::Value = serde_saphyr::from_str(&String::from_utf8_lossy(&bytes)).ok()?;
        serde_json::from_value(document).ok()
    }

    pub(super) fn write_status(&self, status: &ServingClusterStatus) -> Result<(), Failure> {
        let text = serde_saphyr::to_string(status).attempt(|| "cannot write the status".to_owned())?;
        files::replace(&self.path.join("status.yaml"), text.as_bytes())
            .attempt(|| "cannot write the status".to_owned())
    }

    pub(super) fn clear_status(&self) -> Result<(), Failure> {
        files::remove(&self.path.join("status.yaml")).attempt(|| "cannot remove the status".to_owned())
    }

    /// Every engine's record, by name. An unreadable one is an error: it may stand for a living process.
    pub(crate) fn records(&self) -> Result<Vec<Record>, Failure> {
        let folder = self.path.join("instances");
        let mut records = Vec::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(bytes) =
                    files::read(&path).attempt(|| format!("cannot read {}", path.display()))?
            {
                records.push(
                    serde_json::from_slice(&bytes).attempt(|| format!("cannot read {}", path.display()))?,
                );
            }
        }
        records.sort_by(|a: &Record, b: &Record| a.name.cmp(&b.name));
        Ok(records)
    }

    pub(crate) fn gateway_record(&self) -> Result<Option<Record>, Failure> {
        let path = self.path.join("gateway.json");
        let bytes = files::read(&path).attempt(|| format!("cannot read {}", path.display()))?;
        bytes
            .map(|bytes| serde_json::from_slice(&bytes).attempt(|| format!("cannot read {}", path.display())))
            .transpose()
    }

    pub(super) fn record_path(&self, record: &Record) -> PathBuf {
        match record.subject {
            super::Subject::Gateway { .. } => self.path.join("gateway.json"),
            super::Subject::Engine { .. } => {
                self.path.join("instances").join(format!("{}.json", record.name))
            }
        }
    }

    pub(super) fn write_record(&self, record: &Record) -> Result<(), Failure> {
        let path = self.record_path(record);
        let text = serde_json::to_vec_pretty(record).attempt(|| "cannot write a record".to_owned())?;
        files::replace(&path, &text).attempt(|| format!("cannot write {}", path.display()))
    }

    /// Forgets a process that is gone; its log stays.
    pub(super) fn forget(&self, record: &Record) -> Result<(), Failure> {
        let (path, ready) = (self.record_path(record), self.ready_path(&record.name));
        files::remove(&ready)
            .and_then(|()| files::remove(&path))
            .attempt(|| format!("cannot remove {}", path.display()))
    }

    /// What the gateway may call. True if that changed.
    pub(super) fn write_instances(&self, text: &str) -> Result<bool, Failure> {
        files::replace_if_changed(&self.instances_path(), text.as_bytes())
            .attempt(|| "cannot write instances.json".to_owned())
    }

    /// The next epoch, kept before it is used.
    pub(super) fn next_epoch(&self) -> Result<u64, Failure> {
        let path = self.path.join("epoch");
        let old = files::read(&path).attempt(|| "cannot read the epoch".to_owned())?.unwrap_or_default();
        let next = String::from_utf8_lossy(&old).trim().parse::<u64>().unwrap_or(0) + 1;
        files::replace(&path, next.to_string().as_bytes()).attempt(|| "cannot write the epoch".to_owned())?;
        Ok(next)
    }

    /// Makes the fleet's secret if there is none: 32 random bytes in hex.
    pub(super) fn ensure_secret(&self) -> Result<(), Failure> {
        let path = self.secret_path();
        if path.exists() {
            return Ok(());
        }
        let mut bytes = [0u8; 32];
        let random =
            fs::File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
        random.attempt(|| "cannot read random bytes".to_owned())?;
        let hex = bytes.map(|byte| format!("{byte:02x}")).concat();
        files::replace(&path, hex.as_bytes()).attempt(|| format!("cannot write {}", path.display()))
    }

    /// Removes what a finished fleet leaves: spec, status and logs stay.
    pub(super) fn clear_run(&self) -> Result<(), Failure> {
        for path in [self.instances_path(), self.secret_path()] {
            files::remove(&path).attempt(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Removes all of it.
    pub(crate) fn remove(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::failed(format!("cannot remove {}: {error}", self.path.display())))
            }
            _ => Ok(()),
        }
    }
}
