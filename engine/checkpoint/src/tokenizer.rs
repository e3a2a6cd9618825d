//! Where a tokenizer can be built from.

/// The tokenizer as the checkpoint states it.
#[derive(Debug, Clone)]
pub enum TokenizerSource {
    Gguf(GgufTokenizer),
    /// The text of `tokenizer.json`.
    Json(String),
}

/// GGUF's `tokenizer.ggml.*`.
#[derive(Debug, Clone)]
pub struct GgufTokenizer {
    /// `gpt2` (byte-level BPE with merges) or `llama` (sentencepiece-style BPE with scores).
    pub model: String,
    /// Name of the pre-tokenizing rule (`smollm`, `qwen2`, `llama-bpe`, ...).
    pub pre: Option<String>,
    /// By token id, in the file's spelling.
    pub tokens: Vec<String>,
    /// By token id; as many as `tokens`.
    pub token_types: Vec<TokenType>,
    /// `left right` pairs by rank; empty for model `llama`.
    pub merges: Vec<String>,
    /// By token id; empty for model `gpt2`.
    pub scores: Vec<f32>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    /// A prompt starts with `bos`.
    pub add_bos: bool,
    /// A space is put before the text (model `llama`).
    pub add_space_prefix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    Normal,
    Unknown,
    /// Steers the model; never text.
    Control,
    /// Text matched as a whole before anything else.
    UserDefined,
    Unused,
    /// A single byte (`<0x0A>`).
    Byte,
}

impl TokenType {
    /// Not part of the text.
    pub fn is_special(self) -> bool {
        matches!(self, Self::Unknown | Self::Control | Self::Unused)
    }
}
