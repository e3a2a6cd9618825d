//! `kubectl shoal doctor`: what is wrong, and what to do about it.

use clap::Args;
use shoal_terminal::failure::Failure;

use super::{Verdict, output::Output};
use crate::{
    cluster::{Scope, clusters, named},
    doctor::{self, OPERATOR_NAMESPACE, Outcome, text},
};

const EXAMPLES: &str = "\
Examples:
  kubectl shoal doctor                  the installation, and every ServingCluster of the namespace
  kubectl shoal doctor chat -o json
  kubectl shoal doctor --as jane        with the rights of another user, if you may impersonate

Looks at: API server and clock, CustomResourceDefinition, operator and its lease, your rights, and for each cluster
what the operator says of it, pods, network policies, claims, Pod Security, and whether gateway and engines answer (which
generates one token). Marks: ok, note (worth knowing), FAIL (with a remedy), unseen (a right is missing).

Exit code 1 when something failed, 3 when the API server cannot be reached or the named ServingCluster is not there.";

/// Check the installation and fleets, and say what to do about what is wrong.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// Name of the ServingCluster [default: all of the namespace]
    name: Option<String>,
    /// ServingClusters of all namespaces
    #[arg(short = 'A', long, conflicts_with = "name")]
    all_namespaces: bool,
    /// Namespace of the operator, asked when you may not look in all
    #[arg(long, value_name = "NAME", default_value = OPERATOR_NAMESPACE)]
    operator_namespace: String,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Doctor {
    pub(crate) async fn run(self, scope: &Scope) -> Result<Verdict, Failure> {
        let connection = scope.connect().await?;
        let mut checks = doctor::installation(&connection, &self.operator_namespace).await?;
        let found = match &self.name {
            Some(name) => named(&connection, Some(name)).await.map(|one| vec![one]),
            None => clusters(&connection, self.all_namespaces).await,
        };
        let mut absent = None;
        match found {
            Ok(found) => {
                for cluster in found {
                    checks.extend(Box::pin(doctor::fleet(&connection, cluster)).await);
                }
            }
            Err(failure) if self.name.is_some() => absent = Some(failure),
            Err(failure) => checks.push(doctor::unlisted(&connection, &failure)),
        }
        if !self.output.print(&checks)? {
            print!("{}", text(&checks));
        }
        if let Some(failure) = absent {
            return Err(failure);
        }
        Ok(Verdict::fine_if(checks.iter().all(|check| check.outcome != Outcome::Fail)))
    }
}
