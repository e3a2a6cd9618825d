//! A running request as dialects see it: token ids in, pieces of text out.
//!
//! A lane is one prompt with its choices. Several lanes (a completions request with several prompts) are
//! merged; each piece names its choice.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use prometheus::local::LocalHistogram;
use shoal_wire::rpc::{FinishReason, Token};

use super::app::{Context, Permit};
use crate::metrics::Metrics;
use crate::route::{Output, Session, SessionError, Summary};
use crate::text::{Delta, Ending, Flow, Reply};

/// What became certain with the last event.
#[derive(Debug)]
pub(super) enum Event {
    /// Prefill of one lane is done.
    Started,
    Piece(Piece),
    /// A lane ended.
    Done(Totals),
}

#[derive(Debug)]
pub(super) struct Piece {
    pub choice: u32,
    pub deltas: Vec<Delta>,
    /// The tokens behind the text, for log-probabilities.
    pub tokens: Vec<Token>,
    pub finish: Option<Finish>,
}

#[derive(Debug)]
pub(super) struct Finish {
    /// `stop` or `length`.
    pub reason: &'static str,
    pub ending: Ending,
}

/// Sums of one lane or more.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub summary: Summary,
    pub output_tokens: u32,
}

impl Totals {
    /// Adds another lane; names stay those of the first.
    pub(super) fn add(&mut self, other: Self) {
        if self.summary.decode_instance.is_empty() {
            *self = other;
            return;
        }
        let Summary { prompt_tokens, cached_tokens, kv_bytes, kv_tokens, prefill_attempts, replays, .. } =
            other.summary;
        let sum = &mut self.summary;
        sum.prompt_tokens += prompt_tokens;
        sum.cached_tokens += cached_tokens;
        sum.kv_bytes += kv_bytes;
        sum.kv_tokens += kv_tokens;
        sum.prefill_attempts += prefill_attempts;
        sum.replays += replays;
        self.output_tokens += other.output_tokens;
    }
}

pub(super) struct Generation {
    lanes: Lanes,
    context: Context,
    metrics: Arc<Metrics>,
    first_token: Option<Instant>,
    totals: Totals,
    _permit: Permit,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").field("context", &self.context).finish_non_exhaustive()
    }
}

enum Lanes {
    One(Box<Lane>),
    Many(SelectAll<BoxStream<'static, Result<Event, SessionError>>>),
}

impl Generation {
    /// Nothing runs before the first call of `next`.
    pub(super) fn new(mut lanes: Vec<Lane>, context: Context, metrics: Arc<Metrics>, permit: Permit) -> Self {
        let lanes = match (lanes.len(), lanes.pop()) {
            (1, Some(only)) => Lanes::One(Box::new(only)),
            (_, last) => Lanes::Many(lanes.into_iter().chain(last).map(stream).collect()),
        };
        Self { lanes, context, metrics, first_token: None, totals: Totals::default(), _permit: permit }
    }

    /// The next event; none at the end. After an error nothing follows.
    pub(super) async fn next(&mut self) -> Option<Result<Event, SessionError>> {
        let event = match &mut self.lanes {
            Lanes::One(lane) => lane.next().await,
            Lanes::Many(lanes) => lanes.next().await,
        };
        match &event {
            Some(Ok(Event::Piece(_))) if self.first_token.is_none() => {
                let now = Instant::now();
                self.first_token = Some(now);
                self.metrics.ttft_seconds.observe((now - self.context.begun).as_secs_f64());
            }
            Some(Ok(Event::Done(totals))) => self.totals.add(totals.clone()),
            _ => {}
        }
        event
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Sums of the lanes that ended.
    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Milliseconds from the request's head to its first token.
    pub(super) fn ttft_ms(&self) -> Option<f64> {
        self.first_token.map(|at| (at - self.context.begun).as_secs_f64() * 1e3)
    }
}

fn stream(lane: Lane) -> BoxStream<'static, Result<Event, SessionError>> {
    futures::stream::unfold(lane, |mut lane| async move {
        let event = lane.next().await?;
        Some((event, lane))
    })
    .boxed()
}

/// One prompt and its choices.
pub(super) struct Lane {
    session: Session,
    /// Number of this lane's first choice.
    first_choice: u32,
    choices: Vec<Choice>,
    wants_tokens: bool,
    output_tokens: u32,
    token_seconds: LocalHistogram,
    metrics: Arc<Metrics>,
    ended: bool,
}

struct Choice {
    reply: Reply,
    last_token: Option<Instant>,
}

impl Lane {
    pub(super) fn new(
        session: Session,
        replies: Vec<Reply>,
        first_choice: u32,
        metrics: Arc<Metrics>,
    ) -> Self {
        let choices = replies.into_iter().map(|reply| Choice { reply, last_token: None }).collect();
        Self {
            wants_tokens: session.wants_logprobs(),
            session,
            first_choice,
            choices,
            output_tokens: 0,
            token_seconds: metrics.token_seconds.local(),
            metrics,
            ended: false,
        }
    }

    async fn next(&mut self) -> Option<Result<Event, SessionError>> {
        while !self.ended {
            match self.session.next().await {
                None => return Some(Ok(Event::Done(self.end()))),
                Some(Err(error)) => {
                    self.end();
                    return Some(Err(error));
                }
                Some(Ok(Output::Started)) => return Some(Ok(Event::Started)),
                Some(Ok(Output::Tokens { choice, tokens })) => {
                    if let Some(piece) = self.tokens(choice, tokens) {
                        return Some(Ok(Event::Piece(piece)));
                    }
                }
                Some(Ok(Output::Finished { choice, reason, .. })) => {
                    if let Some(piece) = self.finish(choice, reason) {
                        return Some(Ok(Event::Piece(piece)));
                    }
                }
            }
        }
        None
    }

    fn tokens(&mut self, choice: u32, mut tokens: Vec<Token>) -> Option<Piece> {
        let state = self.choices.get_mut(choice as usize)?;
        let mut deltas = Vec::new();
        let mut used = 0;
        let mut flow = Flow::More;
        for token in &tokens {
            used += 1;
            flow = state.reply.push(token.id, &mut deltas);
            if flow == Flow::Stop {
                break;
            }
        }
        let now = Instant::now();
        if let Some(last) = state.last_token.replace(now) {
            let each = (now - last).as_secs_f64() / used.max(1) as f64;
            (0..used).for_each(|_| self.token_seconds.observe(each));
        }
        self.output_tokens += used as u32;
        tokens.truncate(if self.wants_tokens { used } else { 0 });
        let finish = (flow == Flow::Stop).then(|| {
            self.session.close(choice);
            Finish { reason: "stop", ending: state.reply.finish(&mut deltas) }
        });
        Some(Piece { choice: self.first_choice + choice, deltas, tokens, finish })
    }

    fn finish(&mut self, choice: u32, reason: FinishReason) -> Option<Piece> {
        let state = self.choices.get_mut(choice as usize)?;
        let mut deltas = Vec::new();
        let ending = state.reply.finish(&mut deltas);
        let reason = if reason == FinishReason::Length && ending.stop.is_none() { "length" } else { "stop" };
        let finish = Some(Finish { reason, ending });
        Some(Piece { choice: self.first_choice + choice, deltas, tokens: vec![], finish })
    }

    fn end(&mut self) -> Totals {
        self.ended = true;
        let totals = Totals { summary: self.session.summary().clone(), output_tokens: self.output_tokens };
        self.metrics.prompt_tokens.inc_by(u64::from(totals.summary.prompt_tokens));
        self.metrics.cached_tokens.inc_by(u64::from(totals.summary.cached_tokens));
        self.metrics.output_tokens.inc_by(u64::from(totals.output_tokens));
        totals
    }
}
