//! `/v1/tokenize` and `/v1/detokenize`: the model's own reading of text, without generating.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::Serialize;
use serde_json::Map;

use super::app::App;
use super::body;
use super::error::ApiError;
use super::fields::Fields;
use super::sampling::token_ids;
use crate::limits::MAX_NAME_BYTES;
use crate::text::ChatInput;

#[derive(Debug, Serialize)]
pub(super) struct Encoded {
    tokens: Vec<u32>,
    count: usize,
    /// Tokens of prompt and output together.
    max_model_len: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Decoded {
    prompt: String,
}

/// `{"prompt": text, "add_special_tokens": true}` or `{"messages": [...], "add_generation_prompt": true}`.
pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Encoded>, ApiError> {
    let body = body::read(request, &app.limits).await?;
    let (small, worker) = (body::is_small(&body), Arc::clone(&app));
    let tokens = body::work(small, &app.workers, move || encode(&body, &worker)).await?;
    Ok(Json(Encoded { count: tokens.len(), tokens, max_model_len: app.context() }))
}

/// `{"tokens": [ids], "skip_special_tokens": false}`.
pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Decoded>, ApiError> {
    let body = body::read(request, &app.limits).await?;
    let (small, worker) = (body::is_small(&body), Arc::clone(&app));
    let prompt = body::work(small, &app.workers, move || decode(&body, &worker)).await?;
    Ok(Json(Decoded { prompt }))
}

fn encode(body: &[u8], app: &App) -> Result<Vec<u32>, ApiError> {
    let mut fields = fields(body, app)?;
    let special = fields.boolean("add_special_tokens")?.unwrap_or(true);
    if let Some(text) = fields.string("prompt", app.limits.body_bytes)? {
        return Ok(app.text.encode(&text, special)?);
    }
    let Some(messages) = fields.array("messages", app.limits.messages)? else {
        return Err(fields.refuse("prompt", "must be a string, or `messages` an array of messages"));
    };
    let input = ChatInput {
        messages,
        tools: fields.array("tools", app.limits.tools)?.unwrap_or_default(),
        add_generation_prompt: fields.boolean("add_generation_prompt")?.unwrap_or(true),
        template_kwargs: fields.object("chat_template_kwargs")?.map_or_else(Map::new, Fields::into_map),
        ..ChatInput::default()
    };
    Ok(app.text.chat(&input)?.tokens)
}

fn decode(body: &[u8], app: &App) -> Result<String, ApiError> {
    let mut fields = fields(body, app)?;
    let skip = fields.boolean("skip_special_tokens")?.unwrap_or(false);
    let vocabulary = app.text.vocabulary().len() as u32;
    let items = fields.array("tokens", usize::MAX)?;
    let tokens = items.and_then(|items| token_ids(&items, vocabulary));
    let tokens = tokens.ok_or_else(|| {
        fields.refuse("tokens", format_args!("must be an array of token ids below {vocabulary}"))
    })?;
    Ok(app.text.decode(&tokens, skip)?)
}

fn fields(body: &[u8], app: &App) -> Result<Fields, ApiError> {
    let mut fields = Fields::parse(body)?;
    match fields.string("model", MAX_NAME_BYTES)? {
        Some(asked) if asked != app.model => Err(ApiError::no_such_model(&asked)),
        _ => Ok(fields),
    }
}
