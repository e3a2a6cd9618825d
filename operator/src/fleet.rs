//! What is asked for, after it was checked: everything that the steps behind `validate` may rely on.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, runtime::reflector::ObjectRef};
use shoal_crds::ServingCluster;
use shoal_plan::Cluster;

use crate::{
    labels,
    names::{Names, ObjectName},
};

/// Images, and who pulls them when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    pub engine: String,
    pub gateway: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
}

/// Where the operator itself runs, as far as its children must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    pub images: Images,
    /// Namespace of the operator's own pods.
    pub operator_namespace: String,
    /// How long a fleet's certificate holds.
    pub certificate_lifetime: SignedDuration,
}

/// One checked `ServingCluster`.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// What the planner is given.
    pub cluster: Cluster,
    pub namespace: String,
    pub uid: String,
    pub owner: OwnerReference,
    pub reference: ObjectRef<ServingCluster>,
    pub surroundings: Surroundings,
}

impl Fleet {
    pub fn name(&self) -> &str {
        &self.cluster.name
    }

    pub fn names(&self) -> Names<'_> {
        Names::of(&self.cluster.name)
    }

    /// The name in its certificates. No resolver knows it: processes are called by address.
    pub fn tls_name(&self) -> String {
        format!("{}.{}.fleet.shoal.internal", self.cluster.name, self.namespace)
    }

    /// Metadata of every child: name, namespace, the labels by which it is found, its one owner.
    pub fn object_meta(&self, name: ObjectName) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels::object(&self.cluster.name)),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }

    /// Whether this very cluster, and not an earlier one of its name, controls the object.
    pub fn controls(&self, meta: &ObjectMeta) -> bool {
        controller_uid(meta) == Some(self.uid.as_str())
    }
}

/// UID of the `ServingCluster` that controls an object.
pub fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true))?;
    (controller.kind == ServingCluster::kind(&())).then_some(controller.uid.as_str())
}
