//! Fleet secrets that were read a short while ago, so that a fleet at rest costs no read per look; and the last value of
//! each, for a Secret that somebody deletes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::observe::SeenSecret;

/// A deleted secret is noticed, and put back, after this long even if nothing else happens.
const RECENT: Duration = Duration::from_mins(5);

/// By UID of the cluster.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<HashMap<String, (Instant, SeenSecret)>>);

impl Secrets {
    pub fn recent(&self, cluster: &str) -> Option<SeenSecret> {
        let known = self.0.lock();
        known.get(cluster).filter(|(at, _)| at.elapsed() < RECENT).map(|(_, secret)| secret.clone())
    }

    /// What was read last, however long ago.
    pub fn last(&self, cluster: &str) -> Option<SeenSecret> {
        self.0.lock().get(cluster).map(|(_, secret)| secret.clone())
    }

    pub fn remember(&self, cluster: &str, secret: SeenSecret) -> SeenSecret {
        self.0.lock().insert(cluster.to_owned(), (Instant::now(), secret.clone()));
        secret
    }

    /// Forgets every cluster that is none any more.
    pub fn keep(&self, exists: impl Fn(&str) -> bool) {
        self.0.lock().retain(|cluster, _| exists(cluster));
    }
}
