//! Random schedules: whatever happens in whatever order, every answer is right and every page comes back.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    /// A prompt of a family that shares a prefix, cut at a length.
    Submit {
        family: u32,
        length: usize,
        max_tokens: usize,
        purpose: Purpose,
        seed: u64,
    },
    Cancel(usize),
    Leave(usize),
    /// What the peer of a reserved request does.
    Fill(usize, Outcome),
    Release(usize),
    Role(Role),
    Steps(usize),
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Filled,
    Failed,
    Locally(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let purpose = prop_oneof![
        3 => Just(Purpose::Generate),
        2 => Just(Purpose::GenerateRemote),
        1 => Just(Purpose::Prefill),
    ];
    let submit = (0..3_u32, 1..40_usize, 1..30_usize, purpose, 0..4_u64);
    let outcome = prop_oneof![
        2 => Just(Outcome::Filled),
        1 => Just(Outcome::Failed),
        1 => (0..40_usize).prop_map(Outcome::Locally),
    ];
    let role = prop_oneof![Just(Role::Mixed), Just(Role::Decode), Just(Role::Prefill)];
    prop_oneof![
        6 => submit.prop_map(|(family, length, max_tokens, purpose, seed)| {
            Act::Submit { family, length, max_tokens, purpose, seed }
        }),
        1 => (0..8_usize).prop_map(Act::Cancel),
        1 => (0..8_usize).prop_map(Act::Leave),
        4 => (0..8_usize, outcome).prop_map(|(client, outcome)| Act::Fill(client, outcome)),
        2 => (0..8_usize).prop_map(Act::Release),
        1 => role.prop_map(Act::Role),
        3 => (1..6_usize).prop_map(Act::Steps),
    ]
}

/// A client, and what is known about its request.
struct Watched {
    client: Client,
    reserved: Option<(usize, Vec<Slot>)>,
    over: Option<Finish>,
    refused: bool,
}

impl Watched {
    fn note(&mut self, event: Event) {
        match event {
            Event::Reserved { first_token, slots } => self.reserved = Some((first_token, slots)),
            Event::Token(token) => self.client.emitted.push(token.id),
            Event::Finished(finish) => self.over = Some(finish),
            Event::Refused(_) => self.refused = true,
            Event::Computed { .. } | Event::Admitted { .. } => {}
        }
    }

    fn look(&mut self) {
        while let Ok(event) = self.client.events.try_recv() {
            self.note(event);
        }
    }

    fn treat(&mut self, engine: &Engine, act: &Act) {
        match act {
            Act::Cancel(_) => engine.handle.cancel(self.client.id),
            Act::Release(_) => engine.handle.release(self.client.id),
            Act::Fill(_, outcome) => self.fill(engine, *outcome),
            _ => {}
        }
    }

    /// Writes what a peer would have sent, as far as it got.
    fn fill(&mut self, engine: &Engine, outcome: Outcome) {
        self.look();
        let Some((first, slots)) = self.reserved.take() else { return };
        let tokens = &self.client.ask.tokens;
        let valid = match outcome {
            Outcome::Filled => tokens.len(),
            Outcome::Failed => 0,
            Outcome::Locally(valid) => (first + valid).min(tokens.len()),
        };
        for (position, token) in tokens.iter().enumerate().take(valid).skip(first) {
            let slot = slots[(position - first) / PAGE_TOKENS];
            let Some(mut page) = engine.arena.write(slot.page) else { continue };
            if engine.handle.generations().is_current(slot) {
                let at = position % PAGE_TOKENS * 8;
                page[at..at + 8].copy_from_slice(&entry(*token, position));
            }
        }
        let id = self.client.id;
        let first_output =
            || SampledToken { id: self.client.ask.expected()[0], logprob: None, top: Vec::new() };
        match outcome {
            Outcome::Filled => engine.handle.filled(id, Some(first_output()), 0),
            Outcome::Failed => engine.handle.fill_failed(id),
            Outcome::Locally(valid) => engine.handle.fill_locally(id, valid),
        }
    }
}

fn family(number: u32, length: usize, shared: usize) -> Vec<u32> {
    let own = prompt(number + 1, length);
    let common = prompt(0, length);
    common.into_iter().take(shared).chain(own.into_iter().skip(shared)).collect()
}

fn run(acts: Vec<Act>) {
    let engine = Engine::start(26, Limits { max_batch: 3, ..limits() });
    let mut all: Vec<Watched> = Vec::new();
    let mut epoch = 0;
    engine.gate.allow(0);
    for act in acts {
        match act {
            Act::Submit { family: number, length, max_tokens, purpose, seed } => {
                let tokens = family(number, length, 13);
                let client = engine.submit(ask(tokens, max_tokens).seeded(seed).purpose(purpose));
                all.push(Watched { client, reserved: None, over: None, refused: false });
            }
            Act::Leave(index) if index < all.len() => drop(all.remove(index)),
            Act::Cancel(index) | Act::Release(index) | Act::Fill(index, _) | Act::Leave(index) => {
                if let Some(watched) = all.iter_mut().rev().nth(index) {
                    watched.treat(&engine, &act);
                }
            }
            Act::Role(role) => {
                epoch += 1;
                engine.gate.open();
                engine.set_role(role, epoch).expect("newer");
            }
            Act::Steps(steps) => engine.gate.allow(steps),
        }
    }
    engine.gate.open();
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut open: Vec<&mut Watched> = all.iter_mut().collect();
    while !open.is_empty() {
        open.retain_mut(|watched| !watched.settle(&engine));
        assert!(std::time::Instant::now() < deadline, "{} requests do not end", open.len());
        std::thread::yield_now();
    }
    drop(all);
    engine.assert_idle();
}

impl Watched {
    /// Does what is still to be done for a request; once it is over, checks what came out.
    fn settle(&mut self, engine: &Engine) -> bool {
        self.look();
        if self.reserved.is_some() {
            self.fill(engine, Outcome::Filled);
        }
        let prefilled = self.client.ask.purpose == Purpose::Prefill && !self.client.emitted.is_empty();
        if prefilled {
            engine.handle.release(self.client.id);
        }
        // The channel of a prefill closes when its pages were released.
        if !prefilled && !self.refused && self.over.is_none() && !self.client.events.is_closed() {
            return false;
        }
        self.look();
        let (emitted, expected) = (&self.client.emitted, self.client.ask.expected());
        assert!(expected.starts_with(emitted), "{emitted:?} is not how {expected:?} begins");
        if self.over == Some(Finish::Length) {
            assert_eq!(emitted.len(), expected.len());
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn any_schedule_answers_rightly_and_returns_every_page(acts in proptest::collection::vec(act(), 1..40)) {
        run(acts);
    }
}
