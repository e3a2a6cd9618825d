//! Ceilings on the text of one request. Each is checked before the work it bounds begins.

use std::time::Duration;

#[derive(Debug, Clone)]
pub struct TextLimits {
    /// Bytes of a prompt, or of all strings of a chat together, before tokenizing.
    pub input_bytes: usize,
    /// Messages of one chat.
    pub messages: usize,
    /// Nesting of any JSON value in messages, tools and schemas.
    pub json_depth: usize,
    /// JSON values (objects, arrays and scalars) in messages and tools together.
    pub json_values: usize,
    /// Tools of one request.
    pub tools: usize,
    /// Entries of `chat_template_kwargs`.
    pub template_kwargs: usize,
    /// Work one template render may do; about one unit per instruction and per 64 bytes handled.
    pub template_fuel: u64,
    /// Stop strings of one request, and bytes of each.
    pub stop_strings: usize,
    pub stop_bytes: usize,
    /// Bytes of a schema, regex or grammar.
    pub grammar_bytes: usize,
    /// Time a grammar may take to compile before the request is refused.
    pub grammar_time: Duration,
    /// Grammars compiled at the same time.
    pub grammar_threads: usize,
    /// Verdicts on grammars remembered.
    pub grammar_cache: usize,
}

impl Default for TextLimits {
    fn default() -> Self {
        Self {
            input_bytes: 4 << 20,
            messages: 4096,
            json_depth: 64,
            json_values: 200_000,
            tools: 128,
            template_kwargs: 16,
            template_fuel: 4_000_000,
            stop_strings: 16,
            stop_bytes: 1024,
            grammar_bytes: shoal_wire::limits::MAX_GRAMMAR_BYTES,
            grammar_time: Duration::from_secs(2),
            grammar_threads: 2,
            grammar_cache: 1024,
        }
    }
}
