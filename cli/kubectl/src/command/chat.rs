//! `kubectl shoal chat`: a conversation through the gateway's Service.

use clap::Args;
use kube::ResourceExt as _;
use shoal_terminal::{
    conversation::{Server as _, Wishes},
    failure::Failure,
};

use super::Verdict;
use crate::cluster::{Gateway, Scope, Unseen, named};

const EXAMPLES: &str = "\
Examples:
  kubectl shoal chat                                     talk; Ctrl-C ends an answer, Ctrl-D the conversation
  kubectl shoal chat chat -m 'Why is the sea salt?' --stats
  echo 'Summarise this' | kubectl shoal chat chat        each line is a message

Goes through the API server to the gateway's Service: needs the rights to get and create services/proxy and to list
services. For programs, use the Service itself, or kubectl port-forward.";

/// Talk to a fleet; answers stream as they are made.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Chat {
    /// Name of the ServingCluster [default: the only one of the namespace]
    name: Option<String>,
    #[command(flatten)]
    wishes: Wishes,
    /// Name of the model [default: the first that the gateway lists]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

impl Chat {
    pub(crate) async fn run(self, scope: &Scope) -> Result<Verdict, Failure> {
        let connection = scope.connect().await?;
        let cluster = named(&connection, self.name.as_deref()).await?;
        let mut unseen = Unseen::default();
        let service = connection.gateway_service(&cluster, &mut unseen).await.ok_or_else(|| {
            let why = unseen.lines().first().cloned();
            Failure::not_found(why.unwrap_or_else(|| {
                format!("{:?} has no gateway Service yet; kubectl shoal status says why", cluster.name_any())
            }))
        })?;
        let gateway = Gateway::of(&connection, &service);
        let model = match self.model {
            Some(model) => model,
            None => first(&gateway).await?,
        };
        self.wishes.talk(gateway, model).await?;
        Ok(Verdict::Fine)
    }
}

async fn first(gateway: &Gateway) -> Result<String, Failure> {
    let model = gateway.model().await.map_err(|error| Gateway::failure(&error))?;
    model.ok_or_else(|| Failure::failed("the gateway lists no model"))
}
