//! `shoal chat`: a conversation with a served model.

use clap::Args;
use serde_json::Value;
use shoal_terminal::conversation::{Server, Wishes};

use super::State;
use crate::{
    failure::Failure,
    http::{Client, Events, HttpError},
};

const EXAMPLES: &str = "\
Examples:
  shoal chat                                        talk; Ctrl-C ends an answer, Ctrl-D the conversation
  shoal chat -m 'Why is the sea salt?' --stats      one answer and what it cost
  shoal chat --endpoint http://127.0.0.1:9000/v1    some other server of the OpenAI API
  echo 'Summarise this' | shoal chat                each line is a message";

/// Talk to a fleet; answers stream as they are made.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Chat {
    #[command(flatten)]
    wishes: Wishes,
    #[command(flatten)]
    target: super::target::Target,
    #[command(flatten)]
    state: State,
}

impl Chat {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let (base, model) = self.target.resolve(&self.state).await?;
        let server = OverHttp { client: Client::default(), url: format!("{base}/chat/completions") };
        self.wishes.talk(server, model).await
    }
}

struct OverHttp {
    client: Client,
    url: String,
}

impl Server for OverHttp {
    async fn ask(&self, request: &Value) -> Result<Events, HttpError> {
        self.client.stream(&self.url, request).await
    }
}
