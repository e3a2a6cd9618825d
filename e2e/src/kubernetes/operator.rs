//! The operator's binary as a process beside the test, kept running as a kubelet keeps a container.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::proxy::Kill;
use crate::process::build_folder;

const LEASE: &str = "shoal-operator";
/// Longer than the operator gives its last reconciles.
const EXIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Operator {
    log: PathBuf,
    kills: mpsc::UnboundedSender<Kill>,
    ended: Arc<Mutex<Vec<ExitStatus>>>,
    supervising: JoinHandle<Result<()>>,
    stop: oneshot::Sender<()>,
}

/// How it is started.
#[derive(Debug, Clone)]
struct Launch {
    namespace: String,
    kubeconfig: PathBuf,
    log: PathBuf,
}

impl Operator {
    /// Starts it for one namespace, in which its lease is too. Each message of `deaths` ends it by SIGKILL; it is
    /// started again at once. `client` hands the lease of a dead one back, which otherwise takes 30 s to run out.
    pub fn start(
        client: Client,
        namespace: &str,
        server: &str,
        folder: &Path,
        (kills, deaths): (mpsc::UnboundedSender<Kill>, mpsc::UnboundedReceiver<Kill>),
    ) -> Result<Self> {
        let kubeconfig = folder.join(format!("{namespace}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": server}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
        });
        std::fs::write(&kubeconfig, config.to_string())?;
        let log = folder.join(format!("{namespace}.log"));
        let launch = Launch { namespace: namespace.to_owned(), kubeconfig, log: log.clone() };
        let child = launch.spawn()?;
        let ended = Arc::<Mutex<Vec<ExitStatus>>>::default();
        let (stop, stopped) = oneshot::channel();
        let supervising = supervise(client, launch, child, deaths, Arc::clone(&ended), stopped);
        Ok(Self { log, kills, ended, supervising: tokio::spawn(supervising), stop })
    }

    /// SIGKILL, by whoever asks; it is started again at once.
    pub async fn kill(&self) -> Result<()> {
        let (dead, died) = oneshot::channel();
        self.kills.send(dead).ok().context("the operator is not supervised any more")?;
        Ok(died.await?)
    }

    /// Ends it by SIGTERM, and judges its life: it never ended by itself, and never panicked.
    pub async fn finish(self) -> Result<()> {
        // A supervisor that is gone has an error to tell.
        let _ = self.stop.send(());
        self.supervising.await??;
        let ended = self.ended.lock().clone();
        ensure!(
            ended.is_empty(),
            "the operator ended by itself: {ended:?}; its log is {}",
            self.log.display()
        );
        let log = std::fs::read_to_string(&self.log)?;
        if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
            bail!("the operator panicked: {line}; its log is {}", self.log.display());
        }
        Ok(())
    }
}

impl Launch {
    fn spawn(&self) -> Result<Child> {
        let program = build_folder()?.join("shoal-operator");
        let output = File::options().create(true).append(true).open(&self.log)?;
        Command::new(&program)
            .args(["--engine-image", "localhost/shoal:1", "--listen", "127.0.0.1:0"])
            .args(["--namespace", &self.namespace, "--operator-namespace", &self.namespace, "--lease", LEASE])
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{}: run `cargo build --release` first", program.display()))
    }
}

async fn supervise(
    client: Client,
    launch: Launch,
    mut child: Child,
    mut deaths: mpsc::UnboundedReceiver<Kill>,
    ended: Arc<Mutex<Vec<ExitStatus>>>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<()> {
    loop {
        tokio::select! {
            status = child.wait() => ended.lock().push(status?),
            Some(dead) = deaths.recv() => {
                child.kill().await?;
                release(&client, &launch.namespace).await?;
                // Who asked may be gone.
                let _ = dead.send(());
            }
            _ = &mut stopped => return terminate(child, &launch).await,
        }
        child = launch.spawn()?;
    }
}

async fn terminate(mut child: Child, launch: &Launch) -> Result<()> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("it is gone")?;
    kill_process(pid, Signal::TERM)?;
    let status =
        tokio::time::timeout(EXIT, child.wait()).await.context("it does not end after SIGTERM")??;
    ensure!(status.success(), "it ended with {status} after SIGTERM; its log is {}", launch.log.display());
    Ok(())
}

/// In the place of the dead holder.
async fn release(client: &Client, namespace: &str) -> Result<()> {
    let api = Api::<Lease>::namespaced(client.clone(), namespace);
    let free = Patch::Merge(json!({"spec": {"holderIdentity": ""}}));
    match api.patch(LEASE, &PatchParams::default(), &free).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
