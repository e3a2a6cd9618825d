//! kubectl, helm and the cluster's script, as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The repository, in which commands run.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Runs kubectl; its standard output.
///
/// # Errors
/// With all that it said, unless it succeeds.
pub async fn kubectl(arguments: &[&str]) -> Result<String> {
    succeed("kubectl", arguments, None).await
}

/// Runs kubectl with a document on standard input.
pub async fn kubectl_with(document: &str, arguments: &[&str]) -> Result<String> {
    succeed("kubectl", arguments, Some(document)).await
}

pub async fn helm(arguments: &[&str]) -> Result<String> {
    succeed("helm", arguments, None).await
}

/// Runs scripts/cluster.sh for the cluster that `SHOAL_CLUSTER` names.
pub async fn cluster_script(arguments: &[&str]) -> Result<String> {
    succeed("scripts/cluster.sh", arguments, None).await
}

/// Whatever comes of it: for commands whose failure or exit status is looked at.
pub async fn run(program: &str, arguments: &[&str], document: Option<&str>) -> Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .stdin(if document.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    if let (Some(document), Some(mut stdin)) = (document, child.stdin.take()) {
        // A program that refuses its arguments may leave without reading.
        let _ = stdin.write_all(document.as_bytes()).await;
    }
    Ok(child.wait_with_output().await?)
}

async fn succeed(program: &str, arguments: &[&str], document: Option<&str>) -> Result<String> {
    let output = run(program, arguments, document).await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}\n{said}{complaint}", arguments.join(" "), output.status);
    }
    Ok(said)
}
