//! Where instances are: in a file on one machine, or the pods of a cluster.
//!
//! A source yields whole views; it never yields one that it could not read completely, so the last good
//! view stays in use.

mod file;
mod pods;

use std::collections::HashSet;
use std::future::Future;

use serde::Deserialize;

pub use file::FileDiscovery;
pub use pods::{PodDiscovery, PodsError};

const MAX_INSTANCES: usize = 4096;
const MAX_NAME_BYTES: usize = 128;

/// An engine process, as placed by whoever started it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct Placement {
    pub name: String,
    /// gRPC `host:port`.
    pub grpc: String,
    /// It was started without TLS, as those of earlier releases were; a gateway with certificates calls it all the same.
    #[serde(skip)]
    pub plain: bool,
}

pub trait Discovery: Send + 'static {
    /// Waits until the view changed, then returns it. The first call returns as soon as a view is known.
    fn changed(&mut self) -> impl Future<Output = Vec<Placement>> + Send;
}

fn check(instances: &[Placement]) -> Result<(), String> {
    if instances.len() > MAX_INSTANCES {
        return Err(format!(
            "instances has {} entries; at most {MAX_INSTANCES} are allowed",
            instances.len()
        ));
    }
    let mut names = HashSet::new();
    for (i, Placement { name, grpc, plain: _ }) in instances.iter().enumerate() {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(format!("instances[{i}].name must have 1 to {MAX_NAME_BYTES} bytes"));
        }
        if !names.insert(name) {
            return Err(format!("instances[{i}].name {name:?} is there twice"));
        }
        let port = grpc.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
        if port.and_then(|port| port.parse::<u16>().ok()).is_none() {
            return Err(format!("instances[{i}].grpc {grpc:?} must be host:port"));
        }
    }
    Ok(())
}
