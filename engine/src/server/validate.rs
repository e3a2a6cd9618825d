//! From a peer's message to a request that can run: every field is checked before anything is allocated
//! for it, and a refusal names the field and what is allowed.

use std::fmt::Display;
use std::time::{Duration, Instant};

use shoal_wire::PageKeyer;
use shoal_wire::limits::{
    MAX_CHOICES, MAX_LEASE_MS, MAX_PREFILL_TARGETS, MAX_REQUEST_ID_BYTES, MAX_SALT_BYTES, MAX_TOKENS,
};
use shoal_wire::rpc::{self, PrefillTarget};
use tonic::{Code, Status};

use super::refusal::{check_fingerprint, status};
use crate::instance::Instance;
use crate::request::{Sampling, Slot};
use crate::sampling::{SamplingLimits, sampling};
use crate::transfer::Expected;

/// The longest deadline that may be asked for.
const MAX_DEADLINE: Duration = Duration::from_hours(24);
/// Bytes of a name or of host:port.
const MAX_NAME_BYTES: usize = 256;

/// What Generate and Prefill have in common.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    pub(super) request_id: String,
    pub(super) tokens: Vec<u32>,
    pub(super) generated: usize,
    pub(super) sampling: Sampling,
    /// As received; a prefill instance gets the same.
    pub(super) wire_sampling: rpc::Sampling,
    pub(super) tenant: Vec<u8>,
    pub(super) keyer: PageKeyer,
}

#[derive(Debug)]
pub(super) struct Generate {
    pub(super) prompt: Prompt,
    pub(super) choices: u32,
    pub(super) deadline: Option<Instant>,
    /// Without this instance itself.
    pub(super) targets: Vec<PrefillTarget>,
}

#[derive(Debug)]
pub(super) struct Prefill {
    pub(super) prompt: Prompt,
    pub(super) decode_instance: String,
    pub(super) data_address: String,
    pub(super) transfer: u64,
    /// The receiver's slots.
    pub(super) wanted: Expected,
    pub(super) lease: Duration,
}

pub(super) fn generate(request: rpc::GenerateRequest, instance: &Instance) -> Result<Generate, Status> {
    let rpc::GenerateRequest {
        request_id,
        tokens,
        generated,
        sampling,
        choices,
        tenant_salt,
        deadline_ms,
        prefill,
    } = request;
    let choices = choices.max(1);
    check("choices", choices, choices <= MAX_CHOICES, "1 to 64")?;
    check("choices", choices, choices == 1 || generated == 0, "1 together with `generated`")?;
    check("prefill", prefill.len(), prefill.len() <= MAX_PREFILL_TARGETS, "at most 4 targets")?;
    for target in &prefill {
        check_name("prefill.instance", &target.instance)?;
        check_address("prefill.address", &target.address)?;
    }
    let wait = Duration::from_millis(deadline_ms);
    check("deadline_ms", deadline_ms, wait <= MAX_DEADLINE, "at most 86400000")?;
    let prompt = prompt(instance, request_id, tokens, generated, sampling, &tenant_salt)?;
    let ours = &instance.identity.instance;
    Ok(Generate {
        prompt,
        choices,
        deadline: (deadline_ms > 0).then(|| Instant::now() + wait),
        targets: prefill.into_iter().filter(|target| target.instance != *ours).collect(),
    })
}

pub(super) fn prefill(request: rpc::PrefillRequest, instance: &Instance) -> Result<Prefill, Status> {
    let rpc::PrefillRequest {
        request_id,
        tokens,
        generated,
        sampling,
        tenant_salt,
        fingerprint,
        decode_instance,
        decode_incarnation,
        data_address,
        transfer,
        first_token,
        slots,
        lease_ms,
    } = request;
    let theirs = fingerprint.ok_or_else(|| invalid("fingerprint", &"not set", "the caller's fingerprint"))?;
    check_fingerprint(&instance.identity.fingerprint, &theirs)?;
    check_name("decode_instance", &decode_instance)?;
    check_name("decode_incarnation", &decode_incarnation)?;
    check_address("data_address", &data_address)?;
    check("lease_ms", lease_ms, (1..=MAX_LEASE_MS).contains(&lease_ms), "1 to 30000")?;
    let page = instance.geometry.page_tokens;
    let first = first_token as usize;
    let fits = first.is_multiple_of(page) && first < tokens.len();
    check("first_token", first, fits, "a multiple of page_tokens below the number of tokens")?;
    let pages = (tokens.len() - first).div_ceil(page);
    check("slots", slots.len(), slots.len() == pages, "one for each page from first_token on")?;
    let wanted = Expected {
        first_token: first,
        tokens: tokens.len(),
        slots: slots.into_iter().map(|slot| Slot { page: slot.slot, generation: slot.generation }).collect(),
    };
    let prompt = prompt(instance, request_id, tokens, generated, sampling, &tenant_salt)?;
    let lease = Duration::from_millis(lease_ms.into());
    Ok(Prefill { prompt, decode_instance, data_address, transfer, wanted, lease })
}

fn prompt(
    instance: &Instance,
    request_id: String,
    tokens: Vec<u32>,
    generated: u32,
    wire_sampling: Option<rpc::Sampling>,
    tenant_salt: &[u8],
) -> Result<Prompt, Status> {
    let id_fits = (1..=MAX_REQUEST_ID_BYTES).contains(&request_id.len());
    check("request_id", format_args!("{} bytes long", request_id.len()), id_fits, "1 to 64 bytes")?;
    check("tenant_salt", tenant_salt.len(), tenant_salt.len() <= MAX_SALT_BYTES, "at most 32 bytes")?;
    check("tokens", tokens.len(), (1..=MAX_TOKENS).contains(&tokens.len()), "1 to 1048576 tokens")?;
    let identity = &instance.identity;
    if let Some(token) = tokens.iter().find(|token| **token as usize >= identity.vocabulary) {
        return Err(invalid("tokens", token, &format!("token ids below {}", identity.vocabulary)));
    }
    let generated = generated as usize;
    check("generated", generated, generated < tokens.len(), "fewer than `tokens`")?;
    let wire_sampling =
        wire_sampling.ok_or_else(|| invalid("sampling", &"not set", "sampling parameters"))?;
    let limits = SamplingLimits { vocabulary: identity.vocabulary, eos: &identity.eos };
    let sampling = sampling(&wire_sampling, limits)?;
    check("generated", generated, generated < sampling.max_tokens, "fewer than `sampling.max_tokens`")?;
    let tenant = tenant_salt.to_vec();
    let keyer = PageKeyer::new(&instance.secret, &identity.fingerprint, &tenant);
    Ok(Prompt { request_id, tokens, generated, sampling, wire_sampling, tenant, keyer })
}

/// An address is host:port as in a URI's authority; nothing else may come with it.
fn check_address(field: &'static str, address: &str) -> Result<(), Status> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    let plain = address.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
    let fits = address.len() <= MAX_NAME_BYTES && plain;
    let fits = fits && port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    check(field, format_args!("{} bytes", address.len()), fits, "host:port")
}

fn check_name(field: &'static str, name: &str) -> Result<(), Status> {
    check(field, format_args!("{} bytes", name.len()), name.len() <= MAX_NAME_BYTES, "at most 256 bytes")
}

fn check(field: &'static str, given: impl Display, fits: bool, allowed: &str) -> Result<(), Status> {
    if fits { Ok(()) } else { Err(invalid(field, &given, allowed)) }
}

pub(super) fn invalid(field: &'static str, given: &dyn Display, allowed: &str) -> Status {
    status(Code::InvalidArgument, "invalid", format!("`{field}` is {given}; allowed is {allowed}"))
}
