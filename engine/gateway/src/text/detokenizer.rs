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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One token per byte value, then a control token.
    fn every_byte() -> Arc<Vocabulary> {
        let bytes: Vec<[u8; 1]> = (0..=255u8).map(|byte| [byte]).collect();
        let tokens = bytes.iter().map(|byte| (&byte[..], false));
        Arc::new(Vocabulary::new(tokens.chain([(&b"<|im_end|>"[..], true)])))
    }

    /// The text after each token, and at the end.
    fn stream(vocabulary: &Arc<Vocabulary>, ids: &[u32]) -> Vec<String> {
        let mut detokenizer = Detokenizer::new(Arc::clone(vocabulary));
        let mut pieces: Vec<String> = ids
            .iter()
            .map(|id| {
                let mut out = String::new();
                detokenizer.push(*id, &mut out);
                out
            })
            .collect();
        let mut out = String::new();
        detokenizer.finish(&mut out);
        pieces.push(out);
        pieces
    }

    #[test]
    fn a_character_cut_between_tokens_appears_with_its_last_byte() {
        let ids: Vec<u32> = "a€".bytes().map(u32::from).collect();
        assert_eq!(stream(&every_byte(), &ids), ["a", "", "", "€", ""]);
    }

    #[test]
    fn an_unfinished_character_is_replaced_at_the_end() {
        assert_eq!(stream(&every_byte(), &[0x61, 0xE2, 0x82]), ["a", "", "", "\u{FFFD}"]);
    }

    #[test]
    fn a_surrogate_half_never_becomes_text() {
        // U+D800 in the encoding that UTF-8 forbids.
        let text = stream(&every_byte(), &[0xED, 0xA0, 0x80, 0x61]).concat();
        assert_eq!(text, "\u{FFFD}\u{FFFD}\u{FFFD}a");
    }

    #[test]
    fn control_tokens_and_unknown_ids_add_nothing_unless_they_are_shown() {
        let vocabulary = every_byte();
        assert_eq!(stream(&vocabulary, &[0x61, 256, 99_999, 0x62]).concat(), "ab");
        let mut shown = Detokenizer::showing(vocabulary, Arc::new([256]));
        let mut out = String::new();
        shown.push(256, &mut out);
        assert_eq!(out, "<|im_end|>");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_tokens_give_what_decoding_them_at_once_gives(bytes: Vec<u8>, cuts: Vec<usize>) {
            let mut tokens: Vec<&[u8]> = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (token, tail) = rest.split_at(cut % (rest.len() + 1));
                tokens.push(token);
                rest = tail;
            }
            tokens.push(rest);
            let vocabulary = Arc::new(Vocabulary::new(tokens.iter().map(|token| (*token, false))));
            let ids: Vec<u32> = (0..tokens.len() as u32).collect();
            prop_assert_eq!(stream(&vocabulary, &ids).concat(), String::from_utf8_lossy(&bytes));
        }
    }
}
