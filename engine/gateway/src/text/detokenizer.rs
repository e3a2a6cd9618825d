//! Token ids to text, one id at a time.
//!
//! Works on bytes: a token costs one copy of its bytes, whatever came before. Text that is not yet whole
//! UTF-8 (at most three bytes) waits for the next token; bytes that can never become UTF-8 turn into
//! U+FFFD, exactly as a lossy decoding of the whole would do.

use std::sync::Arc;

use super::vocabulary::Vocabulary;

#[derive(Debug, Clone)]
pub struct Detokenizer {
    vocabulary: Arc<Vocabulary>,
    /// Control tokens whose names are text for this stream (a tool format's marks).
    shown: Arc<[u32]>,
    pending: Vec<u8>,
}

impl Detokenizer {
    pub fn new(vocabulary: Arc<Vocabulary>) -> Self {
        Self::showing(vocabulary, Arc::new([]))
    }

    /// As `new`; the control tokens in `shown` appear by name instead of being skipped.
    pub fn showing(vocabulary: Arc<Vocabulary>, shown: Arc<[u32]>) -> Self {
        Self { vocabulary, shown, pending: Vec::with_capacity(64) }
    }

    /// Appends the text that `id` completes to `out`. Control tokens and unknown ids add nothing.
    pub fn push(&mut self, id: u32, out: &mut String) {
        let Some(bytes) = self.vocabulary.bytes(id) else { return };
        if self.vocabulary.is_control(id) && !self.shown.contains(&id) {
            return;
        }
        if self.pending.is_empty()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            out.push_str(text);
            return;
        }
        self.pending.extend_from_slice(bytes);
        let kept = drain_utf8(&self.pending, out);
        self.pending.drain(..self.pending.len() - kept);
    }

    /// The end of the stream: an unfinished character is replaced.
    pub fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}

/// Appends what is decided of `bytes` to `out`; returns how many bytes at the end are still open.
fn drain_utf8(mut bytes: &[u8], out: &mut String) -> usize {
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => {
                out.push_str(text);
                return 0;
            }
            Err(error) => error,
        };
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        out.push_str(&String::from_utf8_lossy(valid));
        let Some(bad) = error.error_len() else { return rest.len() };
        out.push(char::REPLACEMENT_CHARACTER);
        bytes = &rest[bad..];
    }
}
