//! Which instances serve a request, and how it survives losing one.
//!
//! `pick` and `decide` are pure; `Router::choose` feeds them what the fleet reported; `session` runs one
//! request over as many attempts as it takes.

mod attempt;
pub mod breaker;
pub mod budget;
pub mod decide;
mod error;
pub mod pick;
pub mod random;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_wire::rpc::{GenerateRequest, Load, PrefillTarget};
use shoal_wire::{PageKey, PageKeyer};

pub use decide::{Decision, Placement, Reason};
pub use error::{ErrorClass, SessionError};
pub use session::{Job, Output, Session, Summary};

use crate::fleet::{Fleet, Instance, Live};
use crate::metrics::Metrics;
use budget::RetryBudget;
use decide::{Here, There, decide};
use pick::{Candidate, pick};

#[derive(Debug, Clone)]
pub struct Policy {
    pub placement: Placement,
    /// A stream or an instance that is silent for this long counts as stalled.
    pub stall: Duration,
    /// How long a request that an instance worked on waits for another to take it over.
    pub failover_wait: Duration,
    /// How long a new request waits while nobody decodes but somebody is expected to.
    pub arrival_wait: Duration,
}

#[derive(Debug)]
pub struct Router {
    pub fleet: Arc<Fleet>,
    pub metrics: Arc<Metrics>,
    pub policy: Policy,
    budget: RetryBudget,
}

/// A decode instance for a request, and where it shall prefill.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub instance: Arc<Instance>,
    pub incarnation: String,
    pub decision: Decision,
    pub targets: Vec<PrefillTarget>,
    pub prefill: Vec<Arc<Instance>>,
    /// Tokens to compute, wherever that is.
    pub uncached: u32,
}

struct Known {
    instance: Arc<Instance>,
    live: Arc<Live>,
}

impl Router {
    pub fn new(fleet: Arc<Fleet>, policy: Policy) -> Arc<Self> {
        let metrics = Arc::clone(&fleet.metrics);
        Arc::new(Self { fleet, metrics, policy, budget: RetryBudget::new(Instant::now()) })
    }

    /// Picks for `request`; instances whose incarnation is in `excluded` are left out.
    pub(crate) fn choose(
        &self,
        request: &GenerateRequest,
        placement: Option<Placement>,
        excluded: &[String],
    ) -> Option<Chosen> {
        let GenerateRequest { tokens, tenant_salt: salt, .. } = request;
        let decoders = self.decoders(excluded);
        let mut chains = Chains { router: self, tokens, salt, known: vec![] };
        let candidates: Vec<Candidate> = decoders.iter().map(|known| chains.candidate(known)).collect();
        let prompt_tokens = tokens.len() as u32;
        let chosen = pick(&candidates, prompt_tokens)?;
        let (decoder, candidate) = (&decoders[chosen], &candidates[chosen]);

        let prefill = self.prefillers(decoder);
        let here = here(decoder, candidate, prompt_tokens);
        let there: Vec<There> = prefill.iter().map(|known| chains.there(known)).collect();
        let decision = decide(placement.unwrap_or(self.policy.placement), &here, &there);
        let prefill: Vec<_> = decision.targets.iter().map(|&i| Arc::clone(&prefill[i].instance)).collect();
        Some(Chosen {
            instance: Arc::clone(&decoder.instance),
            incarnation: decoder.live.hello.incarnation.clone(),
            targets: prefill.iter().map(target).collect(),
            prefill,
            uncached: prompt_tokens.saturating_sub(candidate.cached_tokens),
            decision,
        })
    }

    /// A new request would find somebody.
    pub fn can_serve(&self) -> bool {
        self.can_choose(&[])
    }

    /// True if `choose` would find somebody.
    pub(crate) fn can_choose(&self, excluded: &[String]) -> bool {
        !self.decoders(excluded).is_empty()
    }

    /// Somebody decodes, but the breakers of all of them are open: they fail at this moment.
    pub(crate) fn is_broken(&self) -> bool {
        let now = Instant::now();
        let instances = self.fleet.instances();
        let mut decoders =
            instances.iter().filter(|instance| instance.live().is_some_and(|live| live.decodes())).peekable();
        decoders.peek().is_some() && decoders.all(|instance| !instance.breaker.allows(now))
    }

    /// Instances that decode, were heard lately, and whose breaker lets a call through.
    fn decoders(&self, excluded: &[String]) -> Vec<Known> {
        let now = Instant::now();
        self.known(now, |Known { instance, live }| {
            live.decodes() && instance.breaker.allows(now) && !excluded.contains(&live.hello.incarnation)
        })
    }

    /// Instances that may push pages to `decoder`: another process of the same layout.
    fn prefillers(&self, decoder: &Known) -> Vec<Known> {
        let Live { hello, fingerprint, .. } = &*decoder.live;
        let now = Instant::now();
        self.known(now, |known| {
            known.live.prefills()
                && known.instance.prefill_breaker.allows(now)
                && known.live.hello.incarnation != hello.incarnation
                && known.live.fingerprint.check(fingerprint).is_ok()
        })
    }

    /// Instances that were heard lately and are `wanted`.
    fn known(&self, now: Instant, wanted: impl Fn(&Known) -> bool) -> Vec<Known> {
        let instances = self.fleet.instances();
        let fresh = instances.iter().filter(|instance| instance.silence(now) < self.policy.stall);
        fresh
            .filter_map(|instance| Some(Known { live: instance.live()?, instance: Arc::clone(instance) }))
            .filter(wanted)
            .collect()
    }
}

fn target(instance: &Arc<Instance>) -> PrefillTarget {
    let placement = &instance.placement;
    PrefillTarget { instance: placement.name.clone(), address: placement.grpc.clone() }
}

fn here(decoder: &Known, candidate: &Candidate, prompt_tokens: u32) -> Here {
    let Load { queued_prefill_tokens, prefill_rate, transfer_rate, prefill_overhead_ms, .. } = candidate.load;
    Here {
        prompt_tokens,
        cached_tokens: candidate.cached_tokens,
        queued_tokens: queued_prefill_tokens,
        prefill_rate,
        transfer_rate,
        overhead_ms: prefill_overhead_ms,
        token_bytes: decoder.live.fingerprint.token_bytes() as u32,
    }
}

/// Page keys of one prompt, made once per layout and only if an instance holds pages to compare with.
struct Chains<'a> {
    router: &'a Router,
    tokens: &'a [u32],
    salt: &'a [u8],
    known: Vec<(Vec<u8>, Vec<PageKey>)>,
}

impl Chains<'_> {
    fn cached_tokens(&mut self, known: &Known) -> u32 {
        let page_tokens = known.live.fingerprint.page_tokens as usize;
        if page_tokens == 0 || self.tokens.len() < page_tokens || !known.instance.has_pages() {
            return 0;
        }
        let identity = known.live.fingerprint.canonical_bytes();
        let at = self.known.iter().position(|(of, _)| *of == identity).unwrap_or_else(|| {
            let keyer = PageKeyer::new(&self.router.fleet.secret, &known.live.fingerprint, self.salt);
            self.known.push((identity, keyer.chain(self.tokens)));
            self.known.len() - 1
        });
        known.instance.cached_tokens(&self.known[at].1, page_tokens) as u32
    }

    fn candidate(&mut self, known: &Known) -> Candidate {
        let unreported = known.instance.unreported();
        Candidate {
            load: known.live.load(),
            unreported: unreported.requests,
            cached_tokens: self.cached_tokens(known),
            page_tokens: known.live.fingerprint.page_tokens,
        }
    }

    fn there(&mut self, known: &Known) -> There {
        let load = known.live.load();
        There {
            cached_tokens: self.cached_tokens(known),
            queued_tokens: load.queued_prefill_tokens + known.instance.unreported().prefill_tokens,
            prefill_rate: load.prefill_rate,
            transfer_rate: load.transfer_rate,
        }
    }
}
