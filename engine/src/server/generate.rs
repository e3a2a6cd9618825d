//! One Generate call: the decode owner of a request runs it to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{BoxStream, SelectAll, once};
use futures::{FutureExt as _, StreamExt as _};
use shoal_wire::rpc::generate_event::Event as Reply;
use shoal_wire::rpc::{GenerateEvent, Heartbeat, Started, Token, Tokens};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status};

use super::remote::{self, Provenance};
use super::replies::{Gone, Replies};
use super::running::Running;
use super::submit::{EventReceiver, submit};
use super::token::finished;
use super::validate::Generate;
use super::{Events, grammars, refusal};
use crate::grammar::Matcher;
use crate::instance::Instance;
use crate::request::{Event, Finish, Purpose};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// Events put into one round of messages.
const ROUND: usize = 32;

/// Why a call ended before its last `Finished`.
enum Stop {
    Gone,
    Failed(Box<Status>),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Failed(Box::new(status))
    }
}

pub(super) async fn start(
    instance: Arc<Instance>,
    request: Generate,
) -> Result<Events<GenerateEvent>, Status> {
    let grammar = grammars::compile(&instance, &request.prompt).await?;
    let heartbeat = || GenerateEvent { event: Some(Reply::Heartbeat(Heartbeat {})) };
    let (mut replies, stream) = Replies::new(HEARTBEAT, heartbeat);
    tokio::spawn(async move {
        let begun = Instant::now();
        let outcome = match Box::pin(run(&instance, &request, grammar, &mut replies, begun)).await {
            Ok(outcome) => outcome,
            Err(Stop::Gone) => "client_gone",
            Err(Stop::Failed(status)) => {
                let request = &request.prompt.request_id;
                tracing::debug!(request, code = ?status.code(), message = status.message(), "refused");
                replies.fail(*status).await;
                "refused"
            }
        };
        instance.metrics.request("generate", outcome, begun.elapsed());
    });
    Ok(stream)
}

async fn run(
    instance: &Instance,
    request: &Generate,
    grammar: Option<Matcher>,
    replies: &mut Replies<GenerateEvent>,
    begun: Instant,
) -> Result<&'static str, Stop> {
    let purpose = if request.targets.is_empty() { Purpose::Generate } else { Purpose::GenerateRemote };
    let matcher = grammar.as_ref().map(Matcher::fork);
    let (mut running, mut events) = submit(instance, &request.prompt, purpose, 0, matcher, request.deadline);
    let mut choices = Choices::new(instance, request, grammar, begun);
    let prefilled = if purpose == Purpose::GenerateRemote {
        tokio::select! {
            prefilled = remote::prefill(instance, &request.prompt, &request.targets, running.id(), &mut events) => prefilled,
            gone = replies.keep_alive() => return Err(gone.into()),
        }
    } else {
        Ok(choices.provenance.clone())
    };
    match prefilled {
        Ok(provenance) => {
            choices.provenance = provenance;
            choices.add(0, running, events);
        }
        Err(last) => {
            running.ended();
            choices.take(0, Some(last))?;
        }
    }
    loop {
        for message in choices.messages.drain(..) {
            replies.send(GenerateEvent { event: Some(message) }).await?;
        }
        if choices.open() == 0 {
            return Ok(choices.outcome);
        }
        tokio::select! {
            round = choices.next() => round?,
            gone = replies.keep_alive() => return Err(gone.into()),
        }
    }
}

/// The choices of one request, and the messages that their events become.
struct Choices<'a> {
    instance: &'a Instance,
    request: &'a Generate,
    grammar: Option<Matcher>,
    begun: Instant,
    provenance: Provenance,
    cached_tokens: usize,
    started: bool,
    streams: SelectAll<BoxStream<'static, (u32, Option<Event>)>>,
    /// By choice; `None` once finished.
    running: Vec<Option<Running>>,
    output: Vec<u32>,
    outcome: &'static str,
    messages: Vec<Reply>,
}

impl<'a> Choices<'a> {
    fn new(instance: &'a Instance, request: &'a Generate, grammar: Option<Matcher>, begun: Instant) -> Self {
        let count = request.choices as usize;
        let prefilled_by = instance.identity.instance.clone();
        Self {
            instance,
            request,
            grammar,
            begun,
            provenance: Provenance { prefilled_by, attempts: 1, ..Provenance::default() },
            cached_tokens: 0,
            started: false,
            streams: SelectAll::new(),
            running: std::iter::repeat_with(|| None).take(count).collect(),
            output: vec![request.prompt.generated as u32; count],
            outcome: "finished",
            messages: Vec::new(),
        }
    }

    fn add(&mut self, choice: u32, running: Running, events: EventReceiver) {
        self.running[choice as usize] = Some(running);
        let events = UnboundedReceiverStream::new(events).map(Some).chain(once(async { None }));
        self.streams.push(events.map(move |event| (choice, event)).boxed());
    }

    fn open(&self) -> usize {
        self.running.iter().flatten().count()
    }

    /// Takes the next event and those that are ready after it.
    async fn next(&mut self) -> Result<(), Status> {
        let mut next = self.streams.next().await;
        for _ in 0..ROUND {
            let Some((choice, event)) = next else { break };
            self.take(choice, event)?;
            next = match self.streams.next().now_or_never() {
                Some(ready) => ready,
                None => return Ok(()),
            };
        }
        if let Some((choice, event)) = next { self.take(choice, event) } else { Ok(()) }
    }

    fn take(&mut self, choice: u32, event: Option<Event>) -> Result<(), Status> {
        match event {
            Some(Event::Admitted { cached_tokens }) if choice == 0 => self.cached_tokens = cached_tokens,
            Some(Event::Token(token)) => {
                self.start();
                self.output[choice as usize] += 1;
                self.push_token(choice, token.into());
            }
            Some(Event::Finished(finish)) => self.finish(choice, finish),
            Some(Event::Refused(refusal)) => {
                self.ended(choice);
                return Err(refusal.into());
            }
            Some(Event::Admitted { .. } | Event::Reserved { .. } | Event::Computed { .. }) => {}
            // The channel of a finished choice closes too.
            None if self.running[choice as usize].is_none() => {}
            None => return Err(refusal::status(Code::Unavailable, "stopped", "the scheduler stopped")),
        }
        Ok(())
    }

    fn push_token(&mut self, choice: u32, token: Token) {
        if let Some(Reply::Tokens(last)) = self.messages.last_mut()
            && last.choice == choice
        {
            last.tokens.push(token);
        } else {
            self.messages.push(Reply::Tokens(Tokens { choice, tokens: vec![token] }));
        }
    }

    fn finish(&mut self, choice: u32, finish: Finish) {
        if finish == Finish::Aborted {
            self.outcome = "aborted";
        } else {
            self.start();
        }
        self.ended(choice);
        self.messages.push(Reply::Finished(finished(choice, finish, self.output[choice as usize])));
        if choice == 0 && !self.started {
            // Aborted before the first token: the other choices were never submitted.
            for other in 1..self.request.choices {
                self.messages.push(Reply::Finished(finished(other, finish, 0)));
            }
        }
    }

    fn ended(&mut self, choice: u32) {
        if let Some(mut running) = self.running[choice as usize].take() {
            running.ended();
        }
    }

    /// The first token is there: says what prefill cost, and submits the other choices, which now find the
    /// prompt in the prefix cache.
    fn start(&mut self) {
        if self.started {
            return;
        }
        self.started = true;
        let Provenance { prefilled_by, kv_bytes, kv_tokens, attempts } = self.provenance.clone();
        self.instance.metrics.first_token(self.begun.elapsed());
        self.messages.push(Reply::Started(Started {
            prompt_tokens: (self.request.prompt.tokens.len() - self.request.prompt.generated) as u32,
            cached_tokens: self.cached_tokens as u32,
            prefilled_by,
            kv_bytes_received: kv_bytes,
            kv_tokens_received: kv_tokens as u32,
            prefill_attempts: attempts,
        }));
        for choice in 1..self.request.choices {
            let Generate { prompt, deadline, .. } = self.request;
            let grammar = self.grammar.as_ref().map(Matcher::fork);
            let (running, events) =
                submit(self.instance, prompt, Purpose::Generate, choice, grammar, *deadline);
            self.add(choice, running, events);
        }
    }
}
