//! A completions answer in one piece.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use crate::http::app::App;
use crate::http::error::ApiError;
use crate::http::generation::{Event, Generation, Piece};
use crate::http::logprobs::CompletionLogprobs;
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
    text: String,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: &'static str,
    #[serde(skip)]
    offset: usize,
}

/// `texts` is what each choice begins with: the echoed prompt, or nothing.
pub(super) async fn whole(
    app: &App,
    mut generation: Generation,
    texts: Vec<String>,
    logprobs: bool,
) -> Result<Response, ApiError> {
    let choice = |(index, text)| Choice {
        index,
        text,
        logprobs: logprobs.then(CompletionLogprobs::default),
        finish_reason: "stop",
        offset: 0,
    };
    let mut choices: Vec<Choice> = texts.into_iter().enumerate().map(choice).collect();
    sse::collect(app, &mut generation, |event| {
        if let Event::Piece(piece) = event
            && let Some(choice) = choices.get_mut(piece.choice as usize)
        {
            choice.add(&app.text, piece);
        }
    })
    .await?;
    let answer = Answer {
        id: super::answer_id(generation.context()),
        object: "text_completion",
        created: now(),
        model: &app.model,
        choices,
        usage: Usage::of(&generation),
        shoal: Shoal::of(&generation),
    };
    Ok(Json(answer).into_response())
}

impl Choice {
    fn add(&mut self, text: &TextModel, piece: Piece) {
        let Piece { choice: _, deltas, tokens, finish } = piece;
        for delta in deltas {
            if let Delta::Content(more) = delta {
                self.text.push_str(&more);
            }
        }
        if let Some(logprobs) = &mut self.logprobs {
            for token in &tokens {
                logprobs.push(text, token, &mut self.offset);
            }
        }
        if let Some(finish) = finish {
            self.finish_reason = finish.reason;
        }
    }
}
