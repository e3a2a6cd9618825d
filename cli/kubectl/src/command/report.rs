//! `kubectl shoal report`: what a bug report needs, in one file.

use std::path::PathBuf;

use clap::Args;
use kube::ResourceExt as _;
use shoal_terminal::failure::Failure;

use super::Verdict;
use crate::{
    cluster::{Scope, named},
    doctor::OPERATOR_NAMESPACE,
    report,
};

const EXAMPLES: &str = "\
Examples:
  kubectl shoal report chat -o chat.tar.gz
  tar -tzf chat.tar.gz                      see what is in it before you send it

In it: the ServingCluster and its objects, the operator's, events, the last of all logs, metrics, versions, what doctor
found, and contents.json, which says what was left out and why. Not in it: Secrets and ConfigMaps, which are not even
read. Redacted: values of environment variables, applied configurations, arguments and fields named like secrets,
and in all texts bearer tokens, keys of known forms, and user names and queries of URLs. A secret that looks like any
other word cannot be told from one: look through the file before you send it.

Exit code 1 when something had to be left out.";

/// Write a redacted archive of a fleet's objects, events, logs, metrics and versions.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Report {
    /// Name of the ServingCluster [default: the only one of the namespace]
    name: Option<String>,
    /// The archive; must not exist [default: shoal-report-NAME.tar.gz]
    #[arg(short, long, value_name = "FILE.tar.gz")]
    output: Option<PathBuf>,
    /// KiB of each log, its end, 1 to 16384
    #[arg(long, value_name = "KIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    log_size: u32,
    /// Namespace of the operator
    #[arg(long, value_name = "NAME", default_value = OPERATOR_NAMESPACE)]
    operator_namespace: String,
}

impl Report {
    pub(crate) async fn run(self, scope: &Scope) -> Result<Verdict, Failure> {
        let connection = scope.connect().await?;
        let cluster = named(&connection, self.name.as_deref()).await?;
        let name = cluster.name_any();
        let path = self.output.unwrap_or_else(|| PathBuf::from(format!("shoal-report-{name}.tar.gz")));
        // Opened first: a file that cannot be written should be told before a minute of collecting.
        let mut archive = report::Archive::create(&path)?;
        let limits = report::Limits { log_bytes: u64::from(self.log_size) << 10 };
        Box::pin(report::collect(&connection, cluster, &self.operator_namespace, limits, &mut archive))
            .await?;
        let contents = archive.finish()?;
        println!("{}: {} files, {} KiB unpacked", path.display(), contents.files.len(), contents.bytes >> 10);
        for line in &contents.left_out {
            println!("  left out: {line}");
        }
        Ok(Verdict::fine_if(contents.left_out.is_empty()))
    }
}
