//! A chat answer in one piece.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use crate::http::app::App;
use crate::http::error::ApiError;
use crate::http::generation::{Event, Generation, Piece};
use crate::http::logprobs::{ChatLogprobs, chat_entry};
use crate::http::sse;
use crate::http::usage::{Shoal, Usage, now};
use crate::text::{Delta, TextModel};

#[derive(Serialize)]
struct Answer<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice>,
    usage: Usage,
    shoal: Shoal,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    message: Message,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
}

#[derive(Default, Serialize)]
struct Message {
    role: &'static str,
    content: Option<String>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

#[derive(Serialize)]
struct ToolCall {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Serialize)]
struct Function {
    name: String,
    arguments: String,
}

pub(super) async fn whole(
    app: &App,
    mut generation: Generation,
    choices: u32,
    logprobs: bool,
) -> Result<Response, ApiError> {
    let mut answers: Vec<Choice> =
        (0..choices as usize).map(|index| Choice::empty(index, logprobs)).collect();
    sse::collect(app, &mut generation, |event| {
        if let Event::Piece(piece) = event
            && let Some(choice) = answers.get_mut(piece.choice as usize)
        {
            choice.add(&app.text, piece);
        }
    })
    .await?;
    answers.iter_mut().for_each(Choice::complete);
    let answer = Answer {
        id: super::answer_id(generation.context()),
        object: "chat.completion",
        created: now(),
        model: &app.model,
        choices: answers,
        usage: Usage::of(&generation),
        shoal: Shoal::of(&generation),
    };
    Ok(Json(answer).into_response())
}

impl Choice {
    fn empty(index: usize, logprobs: bool) -> Self {
        let message = Message { role: "assistant", ..Message::default() };
        Self { index, message, logprobs: logprobs.then(ChatLogprobs::default), finish_reason: "stop" }
    }

    fn add(&mut self, text: &TextModel, piece: Piece) {
        let Piece { choice: _, deltas, tokens, finish } = piece;
        for delta in deltas {
            self.message.add(delta);
        }
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.content.extend(tokens.iter().map(|token| chat_entry(text, token)));
        }
        if let Some(finish) = finish {
            self.finish_reason = super::finish_reason(&finish);
        }
    }

    /// OpenAI's clients expect text unless there are calls instead.
    fn complete(&mut self) {
        if self.message.tool_calls.is_empty() {
            self.message.content.get_or_insert_default();
        }
    }
}

impl Message {
    fn add(&mut self, delta: Delta) {
        match delta {
            Delta::Content(text) => self.content.get_or_insert_default().push_str(&text),
            Delta::Reasoning(text) => self.reasoning_content.get_or_insert_default().push_str(&text),
            Delta::ToolCall { index: _, id, name } => {
                let function = Function { name, arguments: String::new() };
                self.tool_calls.push(ToolCall { id, r#type: "function", function });
            }
            Delta::ToolArguments { index, fragment } => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.function.arguments.push_str(&fragment);
                }
            }
        }
    }
}
