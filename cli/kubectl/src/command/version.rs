//! `kubectl shoal version`: of this command, of operators, of what runs.

use std::{collections::BTreeSet, fmt::Write as _};

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde::Serialize;
use shoal_crds::labels;
use shoal_terminal::failure::Failure;

use super::{Verdict, output::Output};
use crate::{
    cluster::{Connection, Scope, Unseen, pages},
    doctor,
    view::unseen,
};

const EXAMPLES: &str = "\
Examples:
  kubectl shoal version
  kubectl shoal version --client
  kubectl shoal version -o json";

/// Show the versions of this command, the operators, and the engines and gateways of the namespace.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Version {
    /// Only this command's; asks no API server
    #[arg(long)]
    client: bool,
    /// Namespace of the operator, asked when you may not look in all
    #[arg(long, value_name = "NAME", default_value = doctor::OPERATOR_NAMESPACE)]
    operator_namespace: String,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Versions {
    pub(crate) client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kubernetes: Option<String>,
    /// Images.
    pub(crate) operators: BTreeSet<String>,
    pub(crate) engines: BTreeSet<String>,
    pub(crate) gateways: BTreeSet<String>,
    pub(crate) unseen: Vec<String>,
}

impl Version {
    pub(crate) async fn run(self, scope: &Scope) -> Result<Verdict, Failure> {
        let versions = if self.client {
            Versions { client: env!("CARGO_PKG_VERSION"), ..Versions::default() }
        } else {
            Versions::read(&scope.connect().await?, &self.operator_namespace).await
        };
        if !self.output.print(&versions)? {
            print!("{}", versions.text(self.client));
        }
        if versions.kubernetes.is_none() && !self.client {
            return Err(Failure::not_found("the API server does not tell its version"));
        }
        Ok(Verdict::Fine)
    }
}

impl Versions {
    pub(crate) async fn read(connection: &Connection, operator_namespace: &str) -> Self {
        let mut unseen = Unseen::default();
        let asked = connection.client.apiserver_version();
        let kubernetes = unseen.look("get", "/version", "", async { asked.await.map(Some) }).await;
        let operators = doctor::operators(connection, operator_namespace, &mut unseen).await;
        let images = operators.iter().filter_map(|found| found.spec.as_ref()?.template.spec.as_ref());
        let api: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
        let place = format!(" in namespace {}", connection.namespace);
        let params = ListParams::default().labels(labels::CLUSTER);
        let pods = unseen.look("list", "pods", &place, pages(&api, params)).await;
        Self {
            client: env!("CARGO_PKG_VERSION"),
            kubernetes: kubernetes.map(|found| found.git_version),
            operators: images.flat_map(|spec| &spec.containers).filter_map(|one| one.image.clone()).collect(),
            engines: images_of(&pods, labels::INSTANCE_COMPONENT),
            gateways: images_of(&pods, labels::GATEWAY_COMPONENT),
            unseen: unseen.lines().to_vec(),
        }
    }

    fn text(&self, client_only: bool) -> String {
        let mut text = format!("kubectl-shoal  {}\n", self.client);
        if client_only {
            return text;
        }
        let kubernetes = self.kubernetes.clone().into_iter().collect();
        for (name, found) in [
            ("kubernetes", &kubernetes),
            ("operator", &self.operators),
            ("engine", &self.engines),
            ("gateway", &self.gateways),
        ] {
            let list = found.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let list = if list.is_empty() { "none seen" } else { &list };
            let _ = writeln!(text, "{name:<13}  {list}");
        }
        text + &unseen(&self.unseen)
    }
}

fn images_of(pods: &[Pod], component: &str) -> BTreeSet<String> {
    let wanted = pods.iter().filter(|pod| crate::cluster::component(pod) == Some(component));
    let containers = wanted.filter_map(|pod| pod.spec.as_ref()).filter_map(|spec| spec.containers.first());
    containers.filter_map(|container| container.image.clone()).collect()
}
