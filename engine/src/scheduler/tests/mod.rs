//! The scheduler over a model whose outputs can be predicted from its inputs.

mod fake;
mod random;
mod real;
mod remote;
mod roles;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use shoal_model::{Backend, BackendError, PageArena};
use shoal_wire::rpc::Fingerprint;
use shoal_wire::{FleetSecret, PageKeyer};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::{Handle, Limits, Role, StateView, spawn};
use crate::request::{Event, Finish, Purpose, Refusal, Request, SampledToken, Sampling, SequenceId, Slot};
use crate::sampling::{History, sample};
use fake::{Fake, Gate, PAGE_TOKENS, VOCABULARY, entry, logits_after};

const PATIENCE: Duration = Duration::from_secs(20);

struct Engine {
    handle: Handle,
    thread: Option<std::thread::JoinHandle<Result<(), BackendError>>>,
    arena: Arc<PageArena>,
    gate: Arc<Gate>,
    runtime: Arc<Runtime>,
}

fn limits() -> Limits {
    Limits { max_batch: 4, chunk: 8, max_waiting: 64, max_context: 600, role: Role::Mixed }
}

impl Engine {
    fn start(pages: usize, limits: Limits) -> Self {
        let (fake, gate) = Fake::new(pages);
        Self::over(Box::new(fake), gate, limits)
    }

    /// Both kinds: pages computed where transfers see them, and elsewhere.
    fn both(pages: usize, limits: Limits) -> [Self; 2] {
        let (fake, gate) = Fake::apart(pages);
        [Self::start(pages, limits), Self::over(Box::new(fake), gate, limits)]
    }

    /// Returns when the scheduler is warm, so that a test counts its own steps only.
    fn over(backend: Box<dyn Backend>, gate: Arc<Gate>, limits: Limits) -> Self {
        let arena = Arc::clone(backend.arena());
        let (handle, thread) = spawn(backend, limits).expect("thread");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        let engine = Self { handle, thread: Some(thread), arena, gate, runtime: Arc::new(runtime) };
        let _ = engine.wait(engine.handle.check_integrity());
        engine
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await }).expect("in time")
    }

    fn submit(&self, ask: Ask) -> Client {
        let (events, receiver) = mpsc::unbounded_channel();
        let id = self.handle.submit(ask.clone().request(events));
        Client { id, ask, events: receiver, runtime: Arc::clone(&self.runtime), emitted: Vec::new() }
    }

    fn state_when(&self, holds: impl FnMut(&StateView) -> bool) -> StateView {
        let mut states = self.handle.state_changes();
        self.wait(async { states.wait_for(holds).await.map(|state| state.clone()) }).expect("running")
    }

    fn set_role(&self, role: Role, epoch: u64) -> Result<super::RoleChange, super::ControlError> {
        self.wait(self.handle.set_role(role, epoch))
    }

    /// Nothing runs, and every page is free or cached.
    fn assert_idle(&self) {
        let state = self.state_when(|state| {
            state.in_flight == 0 && state.load.pages_free + state.load.pages_cached == state.load.pages_total
        });
        assert_eq!(state.leaked_pages, 0);
        self.assert_whole();
    }

    fn assert_whole(&self) {
        self.wait(self.handle.check_integrity()).expect("running").expect("page counts");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.gate.open();
        self.handle.shutdown();
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            assert!(std::thread::panicking() || outcome.is_ok(), "the scheduler panicked");
        }
    }
}

/// A request in the making.
#[derive(Debug, Clone)]
struct Ask {
    purpose: Purpose,
    tokens: Vec<u32>,
    generated: usize,
    sampling: Sampling,
    tenant: Vec<u8>,
    deadline: Option<std::time::Instant>,
}

fn keyer() -> PageKeyer {
    let fingerprint = Fingerprint { page_tokens: PAGE_TOKENS as u32, ..Default::default() };
    PageKeyer::new(&FleetSecret::from_bytes([1; 32]), &fingerprint, b"")
}

/// A prompt that no other number shares a page with.
fn prompt(number: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|position| 1 + (number * 7 + position * (number + 1)) % 39).collect()
}

/// Greedy, without end tokens.
fn ask(tokens: Vec<u32>, max_tokens: usize) -> Ask {
    let sampling = Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        logit_bias: Vec::new(),
        seed: 1,
        stop_token_ids: Vec::new(),
        max_tokens,
        min_tokens: 0,
        logprobs: None,
    };
    Ask { purpose: Purpose::Generate, tokens, generated: 0, sampling, tenant: Vec::new(), deadline: None }
}

impl Ask {
    fn purpose(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    fn seeded(mut self, seed: u64) -> Self {
        self.sampling.temperature = 1.0;
        self.sampling.repetition_penalty = 1.2;
        self.sampling.seed = seed;
        self
    }

    fn request(self, events: mpsc::UnboundedSender<Event>) -> Request {
        let Self { purpose, tokens, generated, sampling, tenant, deadline } = self;
        Request {
            purpose,
            tokens,
            generated,
            sampling,
            grammar: None,
            keyer: keyer(),
            tenant,
            deadline,
            events,
        }
    }

    /// The tokens that must come out, computed without a scheduler.
    fn expected(&self) -> Vec<u32> {
        let mut tokens = self.tokens.clone();
        let prompt = tokens.len() - self.generated;
        while tokens.len() - prompt < self.sampling.max_tokens {
            let entries = tokens.iter().enumerate().map(|(position, token)| entry(*token, position));
            let history = History::new(&self.sampling, &tokens[..prompt], &tokens[prompt..]);
            let index = tokens.len() - prompt;
            let token = sample(&mut logits_after(entries), &self.sampling, &history, None, index);
            let token = token.expect("no grammar").expect("finite").id;
            if self.sampling.stop_token_ids.contains(&token) {
                break;
            }
            tokens.push(token);
        }
        tokens.split_off(self.tokens.len())
    }
}

struct Client {
    id: SequenceId,
    ask: Ask,
    events: mpsc::UnboundedReceiver<Event>,
    runtime: Arc<Runtime>,
    emitted: Vec<u32>,
}

impl Client {
    fn next(&mut self) -> Event {
        let next = async { tokio::time::timeout(PATIENCE, self.events.recv()).await };
        let event = self.runtime.block_on(next).expect("in time").expect("the scheduler lives");
        if let Event::Token(token) = &event {
            self.emitted.push(token.id);
        }
        event
    }

    /// The next event of interest; others before it are passed over.
    fn until<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next()) {
                return found;
            }
        }
    }

    fn token(&mut self) -> SampledToken {
        self.until(|event| if let Event::Token(token) = event { Some(token) } else { None })
    }

    fn reserved(&mut self) -> (usize, Vec<Slot>) {
        self.until(|event| match event {
            Event::Reserved { first_token, slots } => Some((first_token, slots)),
            _ => None,
        })
    }

    fn cached(&mut self) -> usize {
        self.until(
            |event| if let Event::Admitted { cached_tokens } = event { Some(cached_tokens) } else { None },
        )
    }

    fn refusal(&mut self) -> Refusal {
        self.until(|event| if let Event::Refused(refusal) = event { Some(refusal) } else { None })
    }

    fn finish(&mut self) -> Finish {
        self.until(|event| if let Event::Finished(finish) = event { Some(finish) } else { None })
    }

    /// Runs to the end and compares every token with the prediction.
    fn assert_expected(&mut self) {
        assert_eq!(self.finish(), Finish::Length);
        assert_eq!(self.emitted, self.ask.expected(), "output of {:?}", self.id);
    }
}
