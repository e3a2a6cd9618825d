//! From a prepared prompt to a running lane: what chat and completions do alike.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use shoal_wire::rpc::Sampling;

use super::app::{App, Context};
use super::error::ApiError;
use super::generation::Lane;
use super::sampling::{Common, room};
use crate::route::{Job, Session};
use crate::text::{Prepared, TextError};

/// How many output tokens a dialect gives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub asked: Option<u32>,
    /// None: what fits.
    pub default: Option<u32>,
    pub logprobs: Option<u32>,
    /// The parameter that holds the prompt.
    pub param: &'static str,
}

/// A lane of `common.choices` choices for one prompt. `number` is the prompt's place in its request.
pub(super) fn lane(
    app: &Arc<App>,
    context: &Context,
    common: &Common,
    wanted: Wanted,
    prepared: &Prepared,
    number: u32,
) -> Result<Lane, ApiError> {
    if prepared.tokens.is_empty() {
        let message = format!("`{}` has no tokens; this model needs at least one", wanted.param);
        return Err(ApiError::invalid(wanted.param, message));
    }
    let max_tokens = room(wanted.asked, wanted.default, prepared.tokens.len(), app.context(), &app.limits)
        .map_err(|error| ApiError { param: Some(wanted.param.to_owned()), ..error })?;
    if common.sampling.min_tokens > max_tokens {
        let message =
            format!("`min_tokens` must be at most the {max_tokens} output tokens there is room for");
        return Err(ApiError::invalid("min_tokens", message));
    }
    let sampling = Sampling {
        max_tokens,
        logprobs: wanted.logprobs,
        grammar: prepared.grammar.clone(),
        ..common.sampling.clone()
    };
    let job = Job {
        id: if number == 0 { context.id.clone() } else { format!("{}-{number}", context.id) },
        prompt: prepared.tokens.clone(),
        sampling,
        choices: common.choices,
        salt: salt(context, &common.cache_salt),
        deadline: context.begun + app.request_timeout,
        placement: None,
    };
    let replies = (0..common.choices).map(|_| prepared.reply()).collect();
    let session = Session::new(Arc::clone(&app.router), job);
    Ok(Lane::new(session, replies, number * common.choices, Arc::clone(&app.metrics)))
}

/// Part of every page key: tenants by their API key, and within one by the salt it chose, never share a
/// cached prefix.
fn salt(context: &Context, chosen: &str) -> Bytes {
    if context.tenant.is_none() && chosen.is_empty() {
        return Bytes::new();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(context.tenant.as_ref().map_or(&[0; 32], |hash| hash.as_bytes()));
    hasher.update(chosen.as_bytes());
    Bytes::copy_from_slice(hasher.finalize().as_bytes())
}

/// Records what the gateway itself added before the engine was called.
pub(super) fn prepared(app: &App, body_read: Instant) {
    app.metrics.prepare_seconds.observe(body_read.elapsed().as_secs_f64());
}

impl From<TextError> for ApiError {
    fn from(error: TextError) -> Self {
        match error.class() {
            crate::text::ErrorClass::Transient => Self::unavailable(error.message),
            crate::text::ErrorClass::Invalid => match error.param {
                Some(param) => Self::invalid(param, error.message),
                None => Self::malformed(error.message),
            },
        }
    }
}
