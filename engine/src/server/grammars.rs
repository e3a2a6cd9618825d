//! Compiles a request's grammar off the async workers.

use std::sync::Arc;

use shoal_wire::rpc::grammar::Kind;
use tonic::{Code, Status};

use super::refusal::{grammar_status, status};
use super::validate::{Prompt, invalid};
use crate::grammar::Matcher;
use crate::instance::Instance;

/// The matcher of a request, advanced over the output of earlier attempts; `None` without a grammar.
pub(super) async fn compile(instance: &Arc<Instance>, prompt: &Prompt) -> Result<Option<Matcher>, Status> {
    let Some(grammar) = prompt.wire_sampling.grammar.clone() else { return Ok(None) };
    let kind = Kind::try_from(grammar.kind)
        .map_err(|_| invalid("sampling.grammar.kind", &grammar.kind, "JSON_SCHEMA, REGEX or LARK"))?;
    let instance = Arc::clone(instance);
    let output = prompt.tokens[prompt.tokens.len() - prompt.generated..].to_vec();
    let compiled = tokio::task::spawn_blocking(move || {
        let compiler = instance.grammars.as_ref().map_err(grammar_status)?;
        let mut matcher = compiler.compile(kind, &grammar.source).map_err(|error| grammar_status(&error))?;
        for token in output {
            matcher.consume(token).map_err(|error| grammar_status(&error))?;
        }
        Ok(matcher)
    });
    let failed = |error| status(Code::Internal, "invalid", format!("the grammar compiler failed: {error}"));
    compiled.await.map_err(failed)?.map(Some)
}
