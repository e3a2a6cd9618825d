//! A chat answer in chunks.

use std::sync::Arc;

use serde::Serialize;
use shoal_wire::rpc::Token;

use crate::http::app::App;
use crate::http::generation::{Event, Finish, Generation, Piece};
use crate::http::logprobs::{ChatLogprobs, chat_entry};
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
    /// Per choice: tokens whose log-probabilities wait for the next chunk.
    waiting: Vec<Vec<Token>>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shoal: Option<Shoal>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    delta: Message<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ToolCall<'a>; 1]>,
}

#[derive(Serialize)]
struct ToolCall<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl Chunks {
    pub(super) fn new(app: Arc<App>, generation: &Generation, common: &Common, logprobs: bool) -> Self {
        Self {
            id: super::answer_id(generation.context()),
            created: now(),
            include_usage: common.include_usage,
            logprobs,
            waiting: vec![vec![]; common.choices as usize],
            app,
        }
    }

    fn chunk(&self, choice: Choice<'_>, out: &mut Vec<u8>) {
        push(out, &self.envelope(&[choice], None, None));
    }

    fn envelope<'a>(
        &'a self,
        choices: &'a [Choice<'a>],
        usage: Option<Usage>,
        shoal: Option<Shoal>,
    ) -> Chunk<'a> {
        Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.app.model,
            choices,
            usage,
            shoal,
        }
    }

    fn open_choices(&self, out: &mut Vec<u8>) {
        for index in 0..self.waiting.len() as u32 {
            let delta = Message { role: Some("assistant"), content: Some(""), ..Message::default() };
            self.chunk(Choice { index, delta, logprobs: None, finish_reason: None }, out);
        }
    }

    fn piece(&mut self, piece: Piece, out: &mut Vec<u8>) {
        let Piece { choice: index, deltas, tokens, finish } = piece;
        if self.logprobs
            && let Some(waiting) = self.waiting.get_mut(index as usize)
        {
            waiting.extend(tokens);
        }
        for delta in &deltas {
            let logprobs = self.take_logprobs(index);
            self.chunk(Choice { index, delta: message(delta), logprobs, finish_reason: None }, out);
        }
        if let Some(finish) = finish {
            self.finish(index, &finish, out);
        }
    }

    fn finish(&mut self, index: u32, finish: &Finish, out: &mut Vec<u8>) {
        let logprobs = self.take_logprobs(index);
        let finish_reason = Some(super::finish_reason(finish));
        self.chunk(Choice { index, delta: Message::default(), logprobs, finish_reason }, out);
    }

    fn take_logprobs(&mut self, index: u32) -> Option<ChatLogprobs> {
        let waiting = self.waiting.get_mut(index as usize).filter(|waiting| !waiting.is_empty())?;
        let mut logprobs = ChatLogprobs::default();
        logprobs.content.extend(waiting.drain(..).map(|token| chat_entry(&self.app.text, &token)));
        Some(logprobs)
    }
}

impl Dialect for Chunks {
    fn render(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Started => self.open_choices(out),
            Event::Piece(piece) => self.piece(piece, out),
            Event::Done(_) => {}
        }
    }

    fn close(&mut self, generation: &Generation, out: &mut Vec<u8>) {
        if self.include_usage {
            let (usage, shoal) = (Usage::of(generation), Shoal::of(generation));
            push(out, &self.envelope(&[], Some(usage), Some(shoal)));
        }
    }
}

fn message(delta: &Delta) -> Message<'_> {
    match delta {
        Delta::Content(text) => Message { content: Some(text), ..Message::default() },
        Delta::Reasoning(text) => Message { reasoning_content: Some(text), ..Message::default() },
        Delta::ToolCall { index, id, name } => {
            Message { tool_calls: Some([tool_call(*index, Some(id), Some(name), "")]), ..Message::default() }
        }
        Delta::ToolArguments { index, fragment } => {
            Message { tool_calls: Some([tool_call(*index, None, None, fragment)]), ..Message::default() }
        }
    }
}

fn tool_call<'a>(
    index: usize,
    id: Option<&'a str>,
    name: Option<&'a str>,
    arguments: &'a str,
) -> ToolCall<'a> {
    ToolCall { index, id, r#type: name.map(|_| "function"), function: Function { name, arguments } }
}
