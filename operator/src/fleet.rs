//! What is asked for, after it was checked: everything that the steps behind `validate` may rely on.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, runtime::reflector::ObjectRef};
use shoal_crds::{ImagePullPolicy, ServingCluster, ServingClusterStatus};
use shoal_plan::{Cluster, Role};

use crate::{
    cache::Live,
    counts::{self, Counts, Hold},
    labels,
    names::{Names, ObjectName},
};

/// Images, and who pulls them when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    pub engine: String,
    pub gateway: String,
    /// With shoal-fetch on its path; without one no model can be downloaded.
    pub fetch: Option<String>,
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
    /// What the planner is given; its counts are those that are to be planned for.
    pub cluster: Cluster,
    /// Counts that the resource itself says.
    pub manifest: Counts,
    /// Counts that its ServingRoles are to say.
    pub asked: Counts,
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

    /// When a node pulls an image: as the resource says, else as the operator was told.
    pub fn pull_policy(&self, asked: Option<ImagePullPolicy>) -> String {
        asked.map_or_else(|| self.surroundings.images.pull_policy.clone(), |asked| asked.as_str().to_owned())
    }

    /// Takes over what was edited last, the resource or its ServingRoles; why not, if it is not allowed.
    pub fn settle(&mut self, live: &Live, status: Option<&ServingClusterStatus>) -> Option<Hold> {
        let own = |role| live.role(role).filter(|found| self.controls(&found.metadata));
        let asked = |role| counts::asked(self.manifest.get(role), own(role));
        self.asked = Counts { prefill: asked(Role::Prefill), decode: asked(Role::Decode) };
        let (planned, hold) = counts::allowed(self.manifest, self.asked, status);
        self.cluster.spec.prefill.replicas = planned.prefill;
        self.cluster.spec.decode.replicas = planned.decode;
        hold
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
