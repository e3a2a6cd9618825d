//! Ceilings on everything a peer can send. A receiver checks them before it allocates.

/// Tokens in one request, prompt and earlier output together.
pub const MAX_TOKENS: usize = 1 << 20;
/// Bytes of one gRPC message. A token id needs at most five bytes, so `MAX_TOKENS` fits.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Bytes of a request id.
pub const MAX_REQUEST_ID_BYTES: usize = 64;
/// Choices (`n`) of one request.
pub const MAX_CHOICES: u32 = 64;
/// Entries of `logit_bias`.
pub const MAX_LOGIT_BIAS: usize = 1024;
/// Entries of `stop_token_ids`.
pub const MAX_STOP_TOKENS: usize = 256;
/// Top log-probabilities reported for a token.
pub const MAX_TOP_LOGPROBS: u32 = 20;
/// Bytes of a grammar's source.
pub const MAX_GRAMMAR_BYTES: usize = 256 << 10;
/// Stack of a thread that compiles a grammar (address space; pages are used as deep as it recurses). The
/// compiler recurses along chains of rules, brackets and references: with the 2 MiB of an ordinary thread, 700
/// chained rules end the process; the worst source of `MAX_GRAMMAR_BYTES` needs more than 64 MiB.
pub const GRAMMAR_STACK_BYTES: usize = 256 << 20;
/// Bytes of a tenant's salt.
pub const MAX_SALT_BYTES: usize = 32;
/// Prefill instances one request may name.
pub const MAX_PREFILL_TARGETS: usize = 4;
/// Page keys in one watch event.
pub const MAX_KEYS_PER_EVENT: usize = 4096;
/// Payload bytes of one data frame: one page. The largest page in use is 8 MiB.
pub const MAX_FRAME_BYTES: usize = 32 << 20;
/// The longest lease a peer may ask for, in milliseconds.
pub const MAX_LEASE_MS: u32 = 30_000;
