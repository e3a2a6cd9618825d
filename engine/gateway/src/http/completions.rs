//! `/v1/completions`: raw prompts, as text or token ids, one or several.
//!
//! Beside OpenAI's parameters and those of `sampling.rs`: `response_format`, `regex`, `grammar` (Lark).
//! `suffix`, and `echo` with `logprobs`, are refused: the engine scores no prompt tokens.

mod answer;
mod stream;

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Value;

use super::app::{App, Context};
use super::body;
use super::chat::constraint;
use super::error::ApiError;
use super::fields::Fields;
use super::generation::{Generation, Lane};
use super::sampling::{Common, TOP_LOGPROBS, common, token_ids};
use super::sse;
use super::submit::{self, Wanted};
use crate::text::{CompletionInput, GrammarSpec, Prepared, Prompt, TextModel};

/// What OpenAI gives if nothing is asked for.
const DEFAULT_MAX_TOKENS: u32 = 16;

#[derive(Debug)]
struct Completion {
    common: Common,
    prompts: Vec<Prompt>,
    response_format: Option<GrammarSpec>,
    max_tokens: Option<u32>,
    logprobs: Option<u32>,
    echo: bool,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = body::read(request, &app.limits).await?;
    let body_read = Instant::now();
    let mut permit = app.admit(1)?;
    let small = body::is_small(&body);
    let parser = Arc::clone(&app);
    let completion = body::work(small, &app.workers, move || parse(&body, &parser)).await?;
    permit.extend(&app, completion.prompts.len() - 1)?;

    let Completion { common, prompts, response_format, max_tokens, logprobs, echo } = completion;
    let cheap = small && response_format.is_none();
    let (text, stop) = (Arc::clone(&app.text), common.stop.clone());
    let prepared =
        body::work(cheap, &app.workers, move || prepare(&text, prompts, &stop, response_format.as_ref()))
            .await?;

    let wanted = Wanted { asked: max_tokens, default: Some(DEFAULT_MAX_TOKENS), logprobs, param: "prompt" };
    let lanes = prepared.iter().zip(0u32..);
    let lanes = lanes.map(|(one, number)| submit::lane(&app, &context, &common, wanted, one, number));
    let lanes: Vec<Lane> = lanes.collect::<Result<_, _>>()?;
    let echoed = echo.then(|| echoes(&app.text, &prepared, common.choices)).transpose()?;
    let texts = echoed.unwrap_or_else(|| vec![String::new(); prepared.len() * common.choices as usize]);
    let generation = Generation::new(lanes, context, Arc::clone(&app.metrics), permit);
    submit::prepared(&app, body_read);
    if common.stream {
        let dialect = stream::Chunks::new(Arc::clone(&app), &generation, &common, texts, logprobs.is_some());
        sse::respond(app, generation, dialect).await
    } else {
        answer::whole(&app, generation, texts, logprobs.is_some()).await
    }
}

fn parse(body: &[u8], app: &App) -> Result<Completion, ApiError> {
    let mut fields = Fields::parse(body)?;
    let vocabulary = app.text.vocabulary().len() as u32;
    let common = common(&mut fields, &app.limits, &app.model, vocabulary)?;
    let suffix = fields.string("suffix", usize::MAX)?;
    if suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(fields.refuse("suffix", "is not supported"));
    }
    let echo = fields.boolean("echo")?.unwrap_or(false);
    let logprobs = fields.integer("logprobs", 0, TOP_LOGPROBS)?.map(|top| top as u32);
    if echo && logprobs.is_some() {
        return Err(fields.refuse("echo", "cannot be combined with `logprobs`: prompt tokens are not scored"));
    }
    let best_of = fields.integer("best_of", 1, i64::from(u32::MAX))?;
    if best_of.is_some_and(|best_of| best_of != i64::from(common.choices)) {
        return Err(fields.refuse("best_of", "must equal `n`"));
    }
    let max_tokens = fields.integer("max_tokens", 1, i64::from(u32::MAX))?.map(|tokens| tokens as u32);
    let prompts = prompts(&mut fields, app, vocabulary)?;
    Ok(Completion { common, prompts, response_format: constraint(&mut fields)?, max_tokens, logprobs, echo })
}

/// A string, token ids, or a list of either.
fn prompts(fields: &mut Fields, app: &App, vocabulary: u32) -> Result<Vec<Prompt>, ApiError> {
    let most = app.limits.prompts.min(app.limits.streams);
    let prompts = match fields.take("prompt") {
        Some(Value::String(text)) => Some(vec![Prompt::Text(text)]),
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => {
            token_ids(&items, vocabulary).map(|ids| vec![Prompt::Tokens(ids)])
        }
        Some(Value::Array(items)) if (1..=most).contains(&items.len()) => {
            items.into_iter().map(|item| prompt(item, vocabulary)).collect()
        }
        _ => None,
    };
    prompts.ok_or_else(|| {
        let allowed = format!(
            "must be a string, an array of token ids below {vocabulary}, or an array of 1 to {most} of either"
        );
        fields.refuse("prompt", allowed)
    })
}

fn prompt(item: Value, vocabulary: u32) -> Option<Prompt> {
    match item {
        Value::String(text) => Some(Prompt::Text(text)),
        Value::Array(items) => token_ids(&items, vocabulary).map(Prompt::Tokens),
        _ => None,
    }
}

fn prepare(
    text: &TextModel,
    prompts: Vec<Prompt>,
    stop: &[String],
    response_format: Option<&GrammarSpec>,
) -> Result<Vec<Prepared>, ApiError> {
    let input =
        |prompt| CompletionInput { prompt, stop: stop.to_vec(), response_format: response_format.cloned() };
    prompts.into_iter().map(|prompt| Ok(text.completion(&input(prompt))?)).collect()
}

/// The prompt's text, once for each choice.
fn echoes(text: &TextModel, prepared: &[Prepared], choices: u32) -> Result<Vec<String>, ApiError> {
    let mut texts = Vec::new();
    for one in prepared {
        let prompt = text.decode(&one.tokens, true)?;
        texts.extend((0..choices).map(|_| prompt.clone()));
    }
    Ok(texts)
}

fn answer_id(context: &Context) -> String {
    format!("cmpl-{}", context.id)
}
