//! Tokens and finish reasons on the wire.

use shoal_wire::rpc::{self, TopLogprob};

use crate::request::{Finish, SampledToken};

impl From<SampledToken> for rpc::Token {
    fn from(token: SampledToken) -> Self {
        let SampledToken { id, logprob, top } = token;
        let top = top.into_iter().map(|(id, logprob)| TopLogprob { id, logprob }).collect();
        Self { id, logprob, top }
    }
}

impl From<rpc::Token> for SampledToken {
    fn from(token: rpc::Token) -> Self {
        let rpc::Token { id, logprob, top } = token;
        Self { id, logprob, top: top.into_iter().map(|entry| (entry.id, entry.logprob)).collect() }
    }
}

/// The `Finished` event of a choice with `output_tokens` tokens.
pub(super) fn finished(choice: u32, finish: Finish, output_tokens: u32) -> rpc::Finished {
    let (reason, stop_token) = match finish {
        Finish::StopToken(token) => (rpc::FinishReason::StopToken, token),
        Finish::Length => (rpc::FinishReason::Length, 0),
        Finish::GrammarEnd => (rpc::FinishReason::GrammarEnd, 0),
        Finish::Aborted => (rpc::FinishReason::Aborted, 0),
    };
    rpc::Finished { choice, reason: reason.into(), output_tokens, stop_token }
}
