//! The step of a pod that brings the model's files before the program starts.

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, ResourceRequirements, SecretEnvSource, VolumeMount,
};
use shoal_crds::{Download, ModelSource};

use super::container::{
    LAST_WORDS, METRICS_PORT, MODEL_FOLDER, POD_IP, container_security, literal, model_mount, model_path,
    pod_ip, quantity,
};
use crate::{
    fleet::{Fleet, Images},
    observe::FETCH_CONTAINER,
};

/// None, if the resource names nothing to fetch. While it runs it tells on the engine's own metrics port how far
/// it is; a pod's ports belong to one container at a time.
pub(super) fn steps(fleet: &Fleet, source: &ModelSource) -> Option<Vec<Container>> {
    Some(vec![container(source, &fleet.surroundings.images)?])
}

fn container(source: &ModelSource, images: &Images) -> Option<Container> {
    let download = source.download.as_ref()?;
    let mount = model_mount(source)?;
    Some(Container {
        name: FETCH_CONTAINER.to_owned(),
        image: images.fetch.clone(),
        image_pull_policy: Some(images.pull_policy.clone()),
        command: Some(vec!["shoal-fetch".to_owned()]),
        args: Some(args(source, download)),
        env: Some(vec![pod_ip()]),
        env_from: download.credentials.as_ref().map(|name| vec![environment(name)]),
        resources: Some(ResourceRequirements {
            requests: Some(
                [("cpu", "100m"), ("memory", "64Mi")].map(|(k, v)| (k.to_owned(), quantity(v))).into(),
            ),
            ..ResourceRequirements::default()
        }),
        security_context: Some(container_security()),
        termination_message_policy: Some(LAST_WORDS.to_owned()),
        volume_mounts: Some(vec![VolumeMount { read_only: None, ..mount }]),
        ..Container::default()
    })
}

fn args(source: &ModelSource, download: &Download) -> Vec<String> {
    let path = model_path(source);
    let (parent, last) = path.rsplit_once('/').unwrap_or((MODEL_FOLDER, &path));
    // A single file has the name that the resource gives it.
    let single = download.files.len() == 1;
    let folder = if single { parent } else { &path };
    let mut args = vec![
        "--folder".to_owned(),
        literal(folder),
        "--listen".to_owned(),
        format!("{POD_IP}{METRICS_PORT}"),
    ];
    for file in &download.files {
        let name = if single { last } else { file.name() };
        args.extend(["--file".to_owned(), literal(name), literal(&file.sha256), literal(&file.url)]);
    }
    args
}

fn environment(secret: &str) -> EnvFromSource {
    EnvFromSource {
        secret_ref: Some(SecretEnvSource { name: secret.to_owned(), optional: Some(false) }),
        ..EnvFromSource::default()
    }
}
