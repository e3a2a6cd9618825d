//! From a kubeconfig to a client.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use shoal_terminal::{failure::Failure, style};

const CONNECT: Duration = Duration::from_secs(5);

/// Which cluster, as whom, and where in it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Scope {
    /// Namespace to look at [default: that of the context]
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The kubeconfig [default: the files that KUBECONFIG names, else ~/.kube/config, else the pod's own account]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// User to impersonate, for example to see what somebody else may see
    #[arg(long = "as", global = true, value_name = "USER")]
    user: Option<String>,
    /// No colours; so does `NO_COLOR` in the environment
    #[arg(long, global = true)]
    no_color: bool,
}

#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// The namespace asked for, or that of the context.
    pub(crate) namespace: String,
}

impl Scope {
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        if self.no_color {
            style::plain();
        }
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT);
        if self.user.is_some() {
            config.auth_info.impersonate.clone_from(&self.user);
        }
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| Failure::invalid(format!("the kubeconfig cannot be used: {error}")))?;
        Ok(Connection { client, namespace })
    }

    async fn config(&self) -> Result<Config, Failure> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        match (&self.kubeconfig, &self.context) {
            (Some(path), _) => {
                let unusable = |error: &dyn std::fmt::Display| {
                    Failure::invalid(format!("--kubeconfig {}: {error}", path.display()))
                };
                let file = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unusable(&error))
            }
            (None, Some(context)) => Config::from_kubeconfig(&options)
                .await
                .map_err(|error| Failure::invalid(format!("--context {context}: {error}"))),
            (None, None) => Config::infer()
                .await
                .map_err(|error| Failure::invalid(format!("no kubeconfig can be used: {error}"))),
        }
    }
}
