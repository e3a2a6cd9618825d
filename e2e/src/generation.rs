//! One `Generate` call to an engine, as a gateway makes it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use shoal_wire::rpc::{
    Finished, GenerateEvent, GenerateRequest, PrefillTarget, Sampling, Started, Token, generate_event::Event,
};
use tonic::Streaming;

use crate::Engine;

/// A call that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_mins(1);

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// What to ask for; the defaults are greedy decoding without an early end.
#[derive(Debug, Clone)]
pub struct Ask {
    pub request: GenerateRequest,
}

impl Ask {
    /// `output` tokens after `prompt`, the likeliest each, with their log-probabilities.
    pub fn greedy(prompt: &[u32], output: u32) -> Self {
        let sampling = Sampling {
            top_p: 1.0,
            repetition_penalty: 1.0,
            ignore_eos: true,
            max_tokens: output,
            logprobs: Some(2),
            ..Sampling::default()
        };
        let request = GenerateRequest {
            request_id: fresh_id(),
            tokens: prompt.to_vec(),
            sampling: Some(sampling),
            choices: 1,
            ..GenerateRequest::default()
        };
        Self { request }
    }

    /// Random sampling that only `seed` decides.
    pub fn seeded(prompt: &[u32], output: u32, seed: u64) -> Self {
        let mut ask = Self::greedy(prompt, output);
        if let Some(sampling) = &mut ask.request.sampling {
            *sampling =
                Sampling { temperature: 0.9, top_p: 0.95, top_k: 50, min_p: 0.01, seed, ..sampling.clone() };
        }
        ask
    }

    /// Where to prefill, best first.
    #[must_use]
    pub fn prefilled_by(mut self, targets: &[(&str, &str)]) -> Self {
        self.request.prefill = targets
            .iter()
            .map(|(instance, address)| PrefillTarget {
                instance: (*instance).to_owned(),
                address: (*address).to_owned(),
            })
            .collect();
        self
    }

    /// The same request from a tenant that never asked before: nothing cached is shared, so every page has
    /// to be computed again.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.request.request_id = fresh_id();
        self.request.tenant_salt = self.request.request_id.clone().into();
        self
    }

    /// Starts the request.
    pub async fn begin(self, engine: &Engine) -> Result<Generation> {
        let request = engine.secret().sign(tonic::Request::new(self.request));
        let events = engine.client().generate(request).await?.into_inner();
        Ok(Generation { events, answer: Answer::default() })
    }

    /// Runs the request to its end.
    pub async fn run(self, engine: &Engine) -> Result<Answer> {
        self.begin(engine).await?.finish().await
    }
}

/// Short enough for a tenant's salt.
fn fresh_id() -> String {
    format!("e2e-{}-{}", std::process::id(), REQUESTS.fetch_add(1, Ordering::Relaxed))
}

/// A request that runs; dropping it is a client that went away.
#[derive(Debug)]
pub struct Generation {
    events: Streaming<GenerateEvent>,
    answer: Answer,
}

impl Generation {
    /// Reads until at least `count` tokens of choice 0 have come.
    pub async fn tokens(&mut self, count: usize) -> Result<()> {
        while self.answer.tokens.len() < count {
            if !self.step().await? {
                bail!("the stream ended after {} tokens", self.answer.tokens.len());
            }
        }
        Ok(())
    }

    pub async fn finish(mut self) -> Result<Answer> {
        while self.step().await? {}
        Ok(self.answer)
    }

    /// Reads one event; false at the end of the stream.
    async fn step(&mut self) -> Result<bool> {
        let event = tokio::time::timeout(SILENCE, self.events.message()).await.context("silence")??;
        let Some(event) = event else { return Ok(false) };
        match event.event.context("an event without content")? {
            Event::Started(started) => self.answer.started = Some(started),
            Event::Tokens(tokens) if tokens.choice == 0 => self.answer.tokens.extend(tokens.tokens),
            Event::Tokens(_) | Event::Heartbeat(_) => {}
            Event::Finished(finished) => self.answer.finished.push(finished),
        }
        Ok(true)
    }
}

#[derive(Debug, Default, Clone)]
pub struct Answer {
    pub started: Option<Started>,
    pub tokens: Vec<Token>,
    pub finished: Vec<Finished>,
}

impl Answer {
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    /// Ids with the exact bits of their log-probabilities: equal only if the arithmetic was.
    pub fn exact(&self) -> Vec<(u32, Option<u32>)> {
        self.tokens.iter().map(|token| (token.id, token.logprob.map(f32::to_bits))).collect()
    }

    pub fn kv_bytes(&self) -> u64 {
        self.started.as_ref().map_or(0, |started| started.kv_bytes_received)
    }

    pub fn prefilled_by(&self) -> &str {
        self.started.as_ref().map_or("", |started| &started.prefilled_by)
    }
}
