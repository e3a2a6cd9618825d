//! `/v1/chat/completions`.
//!
//! Beside OpenAI's parameters and those of `sampling.rs`: `regex`, `grammar` (Lark), `chat_template_kwargs`,
//! `continue_final_message`, `separate_reasoning`. Parameters that are not known are ignored; those that are
//! known and would change the answer, but are not supported, are refused.

mod answer;
mod stream;

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Map, Value};

use super::app::{App, Context};
use super::body;
use super::error::ApiError;
use super::fields::Fields;
use super::generation::{Finish, Generation};
use super::sampling::{Common, TOP_LOGPROBS, common};
use super::sse;
use super::submit::{self, Wanted};
use crate::limits::Limits;
use crate::text::{ChatInput, GrammarSpec, ToolChoice};

/// Would change the answer, and is not there.
const UNSUPPORTED: [&str; 4] = ["functions", "function_call", "audio", "web_search_options"];

#[derive(Debug)]
struct Chat {
    common: Common,
    input: ChatInput,
    max_tokens: Option<u32>,
    logprobs: Option<u32>,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(context): Extension<Context>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = body::read(request, &app.limits).await?;
    let body_read = Instant::now();
    let permit = app.admit(1)?;
    let small = body::is_small(&body);
    let parser = Arc::clone(&app);
    let chat = body::work(small, &app.workers, move || parse(&body, &parser)).await?;

    let Chat { common, input, max_tokens, logprobs } = chat;
    // Compiling a grammar may take long, however short its source.
    let cheap = small && input.response_format.is_none() && input.tools.is_empty();
    let text = Arc::clone(&app.text);
    let prepared = body::work(cheap, &app.workers, move || Ok(text.chat(&input)?)).await?;

    let wanted = Wanted { asked: max_tokens, default: None, logprobs, param: "messages" };
    let lane = submit::lane(&app, &context, &common, wanted, &prepared, 0)?;
    let generation = Generation::new(vec![lane], context, Arc::clone(&app.metrics), permit);
    submit::prepared(&app, body_read);
    if common.stream {
        let dialect = stream::Chunks::new(Arc::clone(&app), &generation, &common, logprobs.is_some());
        sse::respond(app, generation, dialect).await
    } else {
        answer::whole(&app, generation, common.choices, logprobs.is_some()).await
    }
}

fn parse(body: &[u8], app: &App) -> Result<Chat, ApiError> {
    let mut fields = Fields::parse(body)?;
    let vocabulary = app.text.vocabulary().len() as u32;
    let common = common(&mut fields, &app.limits, &app.model, vocabulary)?;
    if let Some(name) = UNSUPPORTED.into_iter().find(|&name| fields.take(name).is_some()) {
        return Err(fields.refuse(name, "is not supported"));
    }
    let logprobs = logprobs(&mut fields)?;
    let max_tokens = max_tokens(&mut fields)?;
    let input = input(&mut fields, &common, &app.limits)?;
    Ok(Chat { common, input, max_tokens, logprobs })
}

fn input(fields: &mut Fields, common: &Common, limits: &Limits) -> Result<ChatInput, ApiError> {
    let messages = fields.array("messages", limits.messages)?;
    let messages = messages.filter(|messages| !messages.is_empty()).ok_or_else(|| {
        fields.refuse("messages", format_args!("must be an array of 1 to {} messages", limits.messages))
    })?;
    let continue_final_message = fields.boolean("continue_final_message")?.unwrap_or(false);
    Ok(ChatInput {
        messages,
        tools: fields.array("tools", limits.tools)?.unwrap_or_default(),
        tool_choice: ToolChoice::from_json(&fields.take("tool_choice").unwrap_or_default())?,
        parallel_tool_calls: fields.boolean("parallel_tool_calls")?.unwrap_or(true),
        response_format: constraint(fields)?,
        stop: common.stop.clone(),
        add_generation_prompt: !continue_final_message,
        continue_final_message,
        template_kwargs: fields.object("chat_template_kwargs")?.map_or_else(Map::new, Fields::into_map),
        separate_reasoning: fields.boolean("separate_reasoning")?.unwrap_or(true),
    })
}

/// At most one of `response_format`, `regex` and `grammar`.
pub(super) fn constraint(fields: &mut Fields) -> Result<Option<GrammarSpec>, ApiError> {
    const MAX: usize = shoal_wire::limits::MAX_GRAMMAR_BYTES;
    let format = fields.take("response_format").unwrap_or(Value::Null);
    let format = GrammarSpec::from_response_format(&format)?;
    let regex = fields.string("regex", MAX)?.map(GrammarSpec::Regex);
    let lark = fields.string("grammar", MAX)?.map(GrammarSpec::Lark);
    let mut given = [("response_format", format), ("regex", regex), ("grammar", lark)]
        .into_iter()
        .filter_map(|(name, spec)| Some((name, spec?)));
    let first = given.next();
    match given.next() {
        Some((name, _)) => {
            Err(fields.refuse(name, "cannot be combined with another constraint of the output"))
        }
        None => Ok(first.map(|(_, spec)| spec)),
    }
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0, TOP_LOGPROBS)?;
    match (wanted, top) {
        (false, Some(top)) if top > 0 => Err(fields.refuse("top_logprobs", "needs `logprobs` to be true")),
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0) as u32)),
    }
}

/// `max_completion_tokens`, or its older name.
fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let old = fields.integer("max_tokens", 1, i64::from(u32::MAX))?;
    let new = fields.integer("max_completion_tokens", 1, i64::from(u32::MAX))?;
    Ok(new.or(old).map(|tokens| tokens as u32))
}

fn answer_id(context: &Context) -> String {
    format!("chatcmpl-{}", context.id)
}

fn finish_reason(finish: &Finish) -> &'static str {
    if finish.ending.tool_calls > 0 && finish.reason == "stop" { "tool_calls" } else { finish.reason }
}
