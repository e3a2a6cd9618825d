//! What each token id stands for, in bytes.

use std::sync::Arc;

/// Bytes of every token, and which tokens are not text. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    tokens: Arc<Tokens>,
}

#[derive(Debug, PartialEq, Eq)]
struct Tokens {
    bytes: Vec<u8>,
    /// Token `id` is `bytes[ends[id - 1]..ends[id]]`.
    ends: Vec<u32>,
    special: Vec<bool>,
    bos: Option<u32>,
    eos: Vec<u32>,
}

impl Vocabulary {
    /// Number of ids, as many as a row of logits has. Ids that the tokenizer does not know (rows added to
    /// round up the matrix) have no bytes and are special.
    pub fn len(&self) -> usize {
        self.tokens.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.ends.is_empty()
    }

    /// What the token adds to the text; not always whole characters. A special token answers with its name
    /// (`<|im_end|>`), an unknown id with nothing.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let Some(&end) = self.tokens.ends.get(id as usize) else { return &[] };
        let start = id.checked_sub(1).map_or(0, |previous| self.tokens.ends[previous as usize]);
        &self.tokens.bytes[start as usize..end as usize]
    }

    /// True for tokens that steer the model and are not text, and for unknown ids.
    pub fn is_special(&self, id: u32) -> bool {
        self.tokens.special.get(id as usize).copied().unwrap_or(true)
    }

    pub fn bos(&self) -> Option<u32> {
        self.tokens.bos
    }

    /// Tokens that end a sequence.
    pub fn eos(&self) -> &[u32] {
        &self.tokens.eos
    }
}

/// Collects tokens in order of their ids.
#[derive(Debug, Default)]
pub(crate) struct VocabularyBuilder {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    special: Vec<bool>,
}

impl VocabularyBuilder {
    pub(crate) fn push(&mut self, bytes: &[u8], special: bool) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len() as u32);
        self.special.push(special);
    }

    pub(crate) fn finish(mut self, size: usize, bos: Option<u32>, eos: Vec<u32>) -> Vocabulary {
        while self.ends.len() < size {
            self.push(&[], true);
        }
        self.ends.truncate(size);
        self.special.truncate(size);
        let tokens = Tokens { bytes: self.bytes, ends: self.ends, special: self.special, bos, eos };
        Vocabulary { tokens: Arc::new(tokens) }
    }
}

/// How the text of ordinary tokens encodes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// Each character stands for one byte (GPT-2's table).
    ByteLevel,
    /// Text with `▁` for a space, and `<0x0A>` for a byte.
    SentencePiece,
}

impl Spelling {
    pub(crate) fn decode(self, text: &str) -> Vec<u8> {
        match self {
            // A character outside the table can only be literal text.
            Self::ByteLevel => text
                .chars()
                .map(byte_of_char)
                .collect::<Option<_>>()
                .unwrap_or_else(|| text.as_bytes().to_vec()),
            Self::SentencePiece => match byte_token(text) {
                Some(byte) => vec![byte],
                None => text.replace('▁', " ").into_bytes(),
            },
        }
    }
}

fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let two_digits = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    two_digits.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// GPT-2's table: printable bytes stand for themselves, the other 68 for U+0100 and up in byte order.
fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

fn byte_of_char(character: char) -> Option<u8> {
    let code = u32::from(character);
    match u8::try_from(code) {
        Ok(byte) => is_printable(byte).then_some(byte),
        Err(_) => (0..=u8::MAX).filter(|byte| !is_printable(*byte)).nth((code - 0x100) as usize),
    }
}

/// Inverse of the byte-level spelling.
pub(crate) fn char_of_byte(byte: u8) -> char {
    if is_printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|byte| !is_printable(*byte)).count() as u32;
    char::from_u32(0x100 + rank).unwrap_or('\u{FFFD}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        let characters: std::collections::BTreeSet<char> = (0..=u8::MAX).map(char_of_byte).collect();
        assert_eq!(characters.len(), 256);
        assert!((0..=u8::MAX).all(|byte| byte_of_char(char_of_byte(byte)) == Some(byte)));
        assert_eq!((char_of_byte(b' '), char_of_byte(b'\n'), char_of_byte(0xAD)), ('Ġ', 'Ċ', '\u{143}'));
    }

    #[test]
    fn spellings_decode_to_bytes() {
        assert_eq!(Spelling::ByteLevel.decode("Ġcafé"), b" caf\xE9");
        assert_eq!(Spelling::ByteLevel.decode("日"), "日".as_bytes());
        assert_eq!(Spelling::SentencePiece.decode("▁the"), b" the");
        assert_eq!(Spelling::SentencePiece.decode("<0x0A>"), b"\n");
        assert_eq!(Spelling::SentencePiece.decode("<0x+A>"), b"<0x+A>");
    }

    #[test]
    fn ids_beyond_the_tokenizer_are_special_and_empty() {
        let mut builder = VocabularyBuilder::default();
        builder.push(b"a", false);
        builder.push(b"bc", false);
        let vocabulary = builder.finish(3, None, vec![]);
        assert_eq!(
            (vocabulary.bytes(0), vocabulary.bytes(1), vocabulary.bytes(2)),
            (&b"a"[..], &b"bc"[..], &b""[..])
        );
        assert_eq!([0, 1, 2, 99].map(|id| vocabulary.is_special(id)), [false, false, true, true]);
        assert_eq!(vocabulary.len(), 3);
    }
}
