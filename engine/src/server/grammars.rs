//! Compiles a request's grammar off the async workers, on a thread whose stack no allowed grammar exhausts.

use std::sync::Arc;

use shoal_wire::limits::GRAMMAR_STACK_BYTES;
use shoal_wire::rpc::grammar::Kind;
use tokio::sync::{Semaphore, oneshot};
use tonic::{Code, Status};

use super::refusal::{grammar_status, status};
use super::validate::{Prompt, invalid};
use crate::grammar::Matcher;
use crate::instance::Instance;

/// Grammars compiled at the same time; the others wait their turn.
static COMPILING: Semaphore = Semaphore::const_new(4);

/// The matcher of a request, advanced over the output of earlier attempts; `None` without a grammar.
pub(super) async fn compile(instance: &Arc<Instance>, prompt: &Prompt) -> Result<Option<Matcher>, Status> {
    let Some(grammar) = prompt.wire_sampling.grammar.clone() else { return Ok(None) };
    let kind = Kind::try_from(grammar.kind)
        .map_err(|_| invalid("sampling.grammar.kind", &grammar.kind, "JSON_SCHEMA, REGEX or LARK"))?;
    let instance = Arc::clone(instance);
    let output = prompt.tokens[prompt.tokens.len() - prompt.generated..].to_vec();
    let turn = COMPILING.acquire().await.map_err(failed)?;
    let (sender, compiled) = oneshot::channel();
    let work = move || {
        let matcher = compile_now(&instance, kind, &grammar.source, &output);
        drop(turn);
        // The caller may have gone.
        let _ = sender.send(matcher);
    };
    let thread = std::thread::Builder::new().name("grammar".to_owned()).stack_size(GRAMMAR_STACK_BYTES);
    thread.spawn(work).map_err(failed)?;
    compiled.await.map_err(failed)?.map(Some)
}

fn compile_now(instance: &Instance, kind: Kind, source: &str, output: &[u32]) -> Result<Matcher, Status> {
    let compiler = instance.grammars.as_ref().map_err(grammar_status)?;
    let mut matcher = compiler.compile(kind, source).map_err(|error| grammar_status(&error))?;
    for token in output {
        matcher.consume(*token).map_err(|error| grammar_status(&error))?;
    }
    Ok(matcher)
}

fn failed(error: impl std::fmt::Display) -> Status {
    status(Code::Internal, "invalid", format!("the grammar compiler failed: {error}"))
}
