//! Which server a request goes to.

use clap::Args;

use super::State;
use crate::{failure::Failure, http::Client, present::fleet};

/// The server to talk to.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Base URL of an OpenAI API [default: that of the cluster]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Name of the model [default: the first that the server lists]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Name of the cluster [default: the only one]
    #[arg(short, long, value_name = "NAME", conflicts_with = "endpoint")]
    cluster: Option<String>,
}

impl Target {
    /// Base URL without a slash at its end, and the model's name.
    pub(super) async fn resolve(&self, state: &State) -> Result<(String, String), Failure> {
        let base = match &self.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => self.endpoint_of_cluster(state)?,
        };
        let model = match &self.model {
            Some(model) => model.clone(),
            None => first_model(&base).await?,
        };
        Ok((base, model))
    }

    fn endpoint_of_cluster(&self, state: &State) -> Result<String, Failure> {
        let dir = state.open()?.find(self.cluster.as_deref())?;
        let status = fleet::load(&dir)?.and_then(|cluster| cluster.status).unwrap_or_default();
        status.endpoint.clone().ok_or_else(|| {
            let ready = status.condition(shoal_crds::condition::READY);
            let why = ready.map_or("it was never up", |ready| ready.message.as_str());
            Failure::failed(format!("cluster {:?} has no endpoint now: {why}", dir.name))
        })
    }
}

async fn first_model(base: &str) -> Result<String, Failure> {
    let models = Client::default()
        .get(&format!("{base}/models"))
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    models["data"][0]["id"]
        .as_str()
        .map(ToOwned::to_owned)
        .ok_or_else(|| Failure::failed(format!("{base}/models lists no model")))
}
