//! From a resource to a fleet that every later step may rely on. No client.
//!
//! The API server has checked the same rules at admission; they are checked again because it may have had an
//! older definition when the object was stored.

use std::collections::BTreeSet;

use kube::{Resource as _, ResourceExt as _, runtime::reflector::ObjectRef};
use shoal_crds::{ModelSource, ServingCluster, ServingClusterSpec};
use shoal_plan::Cluster;

use crate::{
    children::{Overlay, OverlayError},
    counts::Counts,
    error::Class,
    fleet::{Fleet, Surroundings},
    labels::Component,
};

#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    #[error("{0}")]
    Rules(String),
    #[error("spec.{component}.podTemplate.{source}")]
    PodTemplate { component: &'static str, source: OverlayError },
    #[error(
        "spec.model.source.download: this operator was given no image that fetches; start it with --fetch-image"
    )]
    NoFetchImage,
    #[error("spec.model.source.download.files: two files are called {0}; each needs a name of its own")]
    SameName(String),
    #[error("the object has no {0}; it did not come from an API server")]
    NoIdentity(&'static str),
}

impl ValidateError {
    pub fn class(&self) -> Class {
        match self {
            Self::Rules(_)
            | Self::PodTemplate { .. }
            | Self::NoFetchImage
            | Self::SameName(_)
            | Self::NoIdentity(_) => Class::Invalid,
        }
    }
}

/// Both, as a look at a new generation does.
#[cfg(test)]
pub(crate) fn validate(
    cluster: &ServingCluster,
    surroundings: &Surroundings,
) -> Result<Fleet, ValidateError> {
    check(cluster)?;
    fleet(cluster, surroundings)
}

/// The rules of a spec.
pub fn check(cluster: &ServingCluster) -> Result<(), ValidateError> {
    let broken = shoal_crds::broken_rules(cluster);
    if !broken.is_empty() {
        let lines: Vec<String> = broken.iter().map(ToString::to_string).collect();
        return Err(ValidateError::Rules(lines.join("; ")));
    }
    check_pods(&cluster.spec)
}

/// The fleet that a spec asks for which was checked.
pub fn fleet(cluster: &ServingCluster, surroundings: &Surroundings) -> Result<Fleet, ValidateError> {
    check_download(&cluster.spec.model.source, surroundings)?;
    let namespace = cluster.namespace().ok_or(ValidateError::NoIdentity("namespace"))?;
    let uid = cluster.uid().ok_or(ValidateError::NoIdentity("uid"))?;
    let owner = cluster.controller_owner_ref(&()).ok_or(ValidateError::NoIdentity("name"))?;
    let manifest = Counts::of(&cluster.spec);
    Ok(Fleet {
        manifest,
        asked: manifest,
        cluster: Cluster {
            name: cluster.name_any(),
            generation: cluster.metadata.generation.unwrap_or(1),
            spec: cluster.spec.clone(),
            image: surroundings.images.engine.clone(),
            // Unless a look at the gateways finds one that knows no TLS.
            tls: true,
            // A deleted cluster is left to the garbage collector, which ends everything that it owns.
            stopping: false,
        },
        reference: ObjectRef::from_obj(cluster),
        namespace,
        uid,
        owner,
        surroundings: surroundings.clone(),
    })
}

/// What the users' parts of pods say can be merged over the operator's.
fn check_pods(spec: &ServingClusterSpec) -> Result<(), ValidateError> {
    for (component, name, template) in [
        (Component::Instance, "engine", &spec.engine.pod_template),
        (Component::Gateway, "gateway", &spec.gateway.pod_template),
    ] {
        let read = template.as_ref().map(|template| Overlay::read(template, component));
        read.transpose().map_err(|source| ValidateError::PodTemplate { component: name, source })?;
    }
    Ok(())
}

/// What the rules of the definition cannot say of a download.
fn check_download(source: &ModelSource, surroundings: &Surroundings) -> Result<(), ValidateError> {
    let Some(download) = &source.download else { return Ok(()) };
    if surroundings.images.fetch.is_none() {
        return Err(ValidateError::NoFetchImage);
    }
    let mut names = BTreeSet::new();
    match download.files.iter().find(|file| !names.insert(file.name())) {
        Some(twice) => Err(ValidateError::SameName(twice.name().to_owned())),
        None => Ok(()),
    }
}
