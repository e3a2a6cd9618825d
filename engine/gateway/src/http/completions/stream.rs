//! A completions answer in chunks.

use std::sync::Arc;

use serde::Serialize;

use crate::http::app::App;
use crate::http::generation::{Event, Generation, Piece};
use crate::http::logprobs::CompletionLogprobs;
use crate::http::sampling::Common;
use crate::http::sse::{Dialect, push};
use crate::http::usage::{Shoal, Usage, now};
use crate::text::Delta;

pub(super) struct Chunks {
    app: Arc<App>,
    id: String,
    created: u64,
    include_usage: bool,
    logprobs: bool,
    choices: Vec<State>,
}

/// Of one choice: the echoed prompt until it is sent, and characters scored so far.
struct State {
    echo: String,
    offset: usize,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shoal: Option<Shoal>,
}

#[derive(Serialize)]
struct Choice {
    index: u32,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
}

impl Chunks {
    pub(super) fn new(
        app: Arc<App>,
        generation: &Generation,
        common: &Common,
        texts: Vec<String>,
        logprobs: bool,
    ) -> Self {
        Self {
            id: super::answer_id(generation.context()),
            created: now(),
            include_usage: common.include_usage,
            logprobs,
            choices: texts.into_iter().map(|echo| State { echo, offset: 0 }).collect(),
            app,
        }
    }

    fn envelope<'a>(
        &'a self,
        choices: &'a [Choice],
        usage: Option<Usage>,
        shoal: Option<Shoal>,
    ) -> Chunk<'a> {
        Chunk {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.app.model,
            choices,
            usage,
            shoal,
        }
    }

    fn piece(&mut self, piece: Piece, out: &mut Vec<u8>) {
        let Piece { choice: index, deltas, tokens, finish } = piece;
        let Some(state) = self.choices.get_mut(index as usize) else { return };
        let mut text = std::mem::take(&mut state.echo);
        for delta in deltas {
            match delta {
                Delta::Content(more) if text.is_empty() => text = more,
                Delta::Content(more) => text.push_str(&more),
                _ => {}
            }
        }
        let mut logprobs = CompletionLogprobs::default();
        if self.logprobs {
            for token in &tokens {
                logprobs.push(&self.app.text, token, &mut state.offset);
            }
        }
        if text.is_empty() && logprobs.is_empty() && finish.is_none() {
            return;
        }
        let choice = Choice {
            index,
            text,
            logprobs: (!logprobs.is_empty()).then_some(logprobs),
            finish_reason: finish.map(|finish| finish.reason),
        };
        push(out, &self.envelope(&[choice], None, None));
    }
}

impl Dialect for Chunks {
    fn render(&mut self, event: Event, out: &mut Vec<u8>) {
        if let Event::Piece(piece) = event {
            self.piece(piece, out);
        }
    }

    fn close(&mut self, generation: &Generation, out: &mut Vec<u8>) {
        if self.include_usage {
            let (usage, shoal) = (Usage::of(generation), Shoal::of(generation));
            push(out, &self.envelope(&[], Some(usage), Some(shoal)));
        }
    }
}
