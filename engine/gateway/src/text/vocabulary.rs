//! The bytes of every token id, in one block: what detokenizing, log-probability entries and grammars read.

/// A token as log-probability entries show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenText {
    /// Invalid UTF-8 is replaced; `bytes` is exact.
    pub text: String,
    pub bytes: Vec<u8>,
}

pub struct Vocabulary {
    bytes: Vec<u8>,
    /// Token `id` is `bytes[ends[id - 1]..ends[id]]`.
    ends: Vec<u32>,
    control: Vec<bool>,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary").field("tokens", &self.len()).finish_non_exhaustive()
    }
}

impl From<&shoal_checkpoint::Vocabulary> for Vocabulary {
    fn from(table: &shoal_checkpoint::Vocabulary) -> Self {
        Self::new((0..table.len() as u32).map(|id| (table.bytes(id), table.is_special(id))))
    }
}

impl Vocabulary {
    /// Tokens in the order of their ids: bytes, and whether it is a control token (`<|im_end|>`), which
    /// steers the model and is not text. A control token's bytes are its name.
    pub fn new<'a>(tokens: impl IntoIterator<Item = (&'a [u8], bool)>) -> Self {
        let mut vocabulary = Self { bytes: Vec::new(), ends: Vec::new(), control: Vec::new() };
        for (bytes, control) in tokens {
            vocabulary.bytes.extend_from_slice(bytes);
            vocabulary.ends.push(vocabulary.bytes.len() as u32);
            vocabulary.control.push(control);
        }
        vocabulary
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// `None` for an id outside the vocabulary.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        Some(&self.bytes[start..end])
    }

    /// Control tokens are never made from a user's text and not shown; ids outside the vocabulary count.
    pub fn is_control(&self, id: u32) -> bool {
        self.control.get(id as usize).copied().unwrap_or(true)
    }

    /// The entry of a token in `logprobs`; an id outside the vocabulary is empty.
    pub fn text(&self, id: u32) -> TokenText {
        let bytes = self.bytes(id).unwrap_or_default().to_vec();
        TokenText { text: String::from_utf8_lossy(&bytes).into_owned(), bytes }
    }

    /// Control tokens that have a name.
    pub fn controls(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0..self.len() as u32)
            .filter(|id| self.is_control(*id))
            .filter_map(|id| Some((id, self.bytes(id)?)))
            .filter(|(_, name)| !name.is_empty())
    }

    /// The id of the control token with this name.
    pub fn control(&self, name: &str) -> Option<u32> {
        self.controls().find(|(_, bytes)| *bytes == name.as_bytes()).map(|(id, _)| id)
    }
}
