//! What an answer cost: OpenAI's `usage`, and `shoal`, an extra field that OpenAI's SDKs carry along or
//! ignore.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::generation::Generation;

#[derive(Debug, Serialize)]
pub(super) struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
}

#[derive(Debug, Serialize)]
struct PromptDetails {
    cached_tokens: u32,
}

/// Where the request ran and what moved for it. In the final usage chunk of a stream, and beside `usage`
/// in an answer of one piece.
#[derive(Debug, Serialize)]
pub(super) struct Shoal {
    prefill_instance: String,
    decode_instance: String,
    /// `local` or `remote`, and why.
    prefill: &'static str,
    prefill_reason: &'static str,
    /// Payload bytes of KV pages moved from prefill to decode, and the tokens they hold.
    kv_bytes: u64,
    kv_tokens: u32,
    /// 1 unless a prefill instance failed.
    prefill_attempts: u32,
    /// How often the request moved to another decode instance.
    replays: u32,
    /// Milliseconds from the request's head to the first token, and to the end.
    ttft_ms: f64,
    duration_ms: f64,
}

impl Usage {
    pub(super) fn of(generation: &Generation) -> Self {
        let totals = generation.totals();
        let (prompt, completion) = (totals.summary.prompt_tokens, totals.output_tokens);
        Self {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: prompt + completion,
            prompt_tokens_details: PromptDetails { cached_tokens: totals.summary.cached_tokens },
        }
    }
}

impl Shoal {
    pub(super) fn of(generation: &Generation) -> Self {
        let summary = &generation.totals().summary;
        let duration_ms = generation.context().begun.elapsed().as_secs_f64() * 1e3;
        Self {
            prefill_instance: summary.prefill_instance.clone(),
            decode_instance: summary.decode_instance.clone(),
            prefill: summary.place,
            prefill_reason: summary.reason,
            kv_bytes: summary.kv_bytes,
            kv_tokens: summary.kv_tokens,
            prefill_attempts: summary.prefill_attempts,
            replays: summary.replays,
            ttft_ms: generation.ttft_ms().unwrap_or(duration_ms),
            duration_ms,
        }
    }
}

/// Seconds since 1970, for `created`.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
