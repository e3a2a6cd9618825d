//! Reads the manifest a user names, from a file or from standard input.

use std::{
    io::Read,
    path::{Component, Path, PathBuf},
};

use shoal_crds::{DocumentError, ServingCluster, ServingClusterSpec};

use crate::failure::{Attempt, Failure};

/// Far above what the resource's own limit allows; keeps a mistaken path from filling memory.
const MAX_BYTES: u64 = 1 << 20;

/// Reads and checks `path` (`-` is standard input). A relative `model.source.path` is taken from the
/// manifest's own folder and `~/` from the user's home, because the resource itself knows only absolute paths.
pub(super) fn read(path: &Path) -> Result<ServingCluster, Failure> {
    let text = text(path)?;
    let cluster = match shoal_crds::read(&text) {
        Ok(cluster) => cluster,
        Err(error) => match relocated(path, &text) {
            Some(text) => shoal_crds::read(&text).map_err(|error| refused(path, &error))?,
            None => return Err(refused(path, &error)),
        },
    };
    match only_in_a_cluster(&cluster) {
        Some(what) => Err(Failure::invalid(format!("{} is refused:\n  {what}", path.display()))),
        None => Ok(cluster),
    }
}

/// What the manifest says that one machine cannot do.
fn only_in_a_cluster(cluster: &ServingCluster) -> Option<&'static str> {
    let ServingClusterSpec { model, engine, gateway, prefill: _, decode: _ } = &cluster.spec;
    let claim =
        "spec.model.source.claim: there are no claims on one machine; remove it and name the file itself";
    let folder =
        "spec.model.source.hostPath: is for nodes of a cluster; remove it and give path the whole of the way";
    let download =
        "spec.model.source.download: nothing is fetched on one machine; remove it and name the file itself";
    let image = "image, imagePullPolicy and podTemplate of engine and gateway: there are no pods on one machine; \
                 remove them";
    let engine_pod =
        engine.image.is_some() || engine.image_pull_policy.is_some() || engine.pod_template.is_some();
    let gateway_pod =
        gateway.image.is_some() || gateway.image_pull_policy.is_some() || gateway.pod_template.is_some();
    [
        (model.source.claim.is_some(), claim),
        (model.source.host_path.is_some(), folder),
        (model.source.download.is_some(), download),
        (engine_pod || gateway_pod, image),
    ]
    .into_iter()
    .find_map(|(said, what)| said.then_some(what))
}

fn text(path: &Path) -> Result<String, Failure> {
    let name = path.display();
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .attempt(|| "cannot read standard input".to_owned())?;
    } else {
        let file = std::fs::File::open(path)
            .map_err(|error| Failure::invalid(format!("cannot read {name}: {error}")))?;
        file.take(MAX_BYTES).read_to_string(&mut text).attempt(|| format!("cannot read {name}"))?;
    }
    Ok(text)
}

fn refused(path: &Path, error: &DocumentError) -> Failure {
    let text = error.to_string().replace('\n', "\n  ");
    Failure::invalid(format!("{} is refused:\n  {text}", path.display()))
}

/// The manifest with its model path made absolute, if that is what it lacks.
fn relocated(manifest: &Path, text: &str) -> Option<String> {
    let mut cluster = shoal_crds::read_unchecked(text).ok()?;
    let path = PathBuf::from(&cluster.spec.model.source.path);
    if path.is_absolute() || path.as_os_str().is_empty() {
        return None;
    }
    let base = match path.strip_prefix("~") {
        Ok(rest) => PathBuf::from(std::env::var_os("HOME")?).join(rest),
        Err(_) if manifest == Path::new("-") => return None,
        Err(_) => std::path::absolute(manifest).ok()?.parent()?.join(&path),
    };
    without_dots(&base).to_str()?.clone_into(&mut cluster.spec.model.source.path);
    // Written out and read again, so that every other rule is still checked.
    strict(text).then(|| shoal_crds::write(&cluster).ok()).flatten()
}

/// The resource takes no `..`; a user who stands beside the models writes one.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

/// Whether the path is the only thing wrong: nothing else may be lost by writing the document anew.
fn strict(text: &str) -> bool {
    match shoal_crds::read(text) {
        Err(DocumentError::Fields(errors)) => {
            errors.iter().all(|error| error.field == "spec.model.source.path")
        }
        _ => false,
    }
}
