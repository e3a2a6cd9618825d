//! A small byte-level vocabulary that can spell anything, and a chat template of the usual shape.

use crate::tokenizer::{GgufTokenizer, TokenType};
use crate::vocabulary::char_of_byte;

pub(super) const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' \
     + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ \
     '<|im_start|>assistant\\n' }}{% endif %}";

const SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// By rank; `Ġ` is a space.
const MERGES: [&str; 29] = [
    "Ġ t", "h e", "Ġ a", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "e n", "o r", "Ġ w", "Ġ c",
    "i t", "i s", "a n", "o u", "Ġ o", "e s", "Ġ b", "e d", "in g", "Ġ f", "Ġ p", "a l", "Ġa n", "l l",
    "Ġan d",
];

/// Specials, bytes, merged pairs, and unused ids up to `size`.
pub(super) fn tokenizer(size: usize) -> GgufTokenizer {
    let specials = SPECIALS.iter().map(|text| ((*text).to_owned(), TokenType::Control));
    let bytes = (0..=u8::MAX).map(|byte| (char_of_byte(byte).to_string(), TokenType::Normal));
    let merged = MERGES.iter().map(|pair| (pair.replace(' ', ""), TokenType::Normal));
    let known = SPECIALS.len() + 256 + MERGES.len();
    let unused = (known..size).map(|id| (format!("<|unused_{id}|>"), TokenType::Unused));
    let (tokens, token_types) = specials.chain(bytes).chain(merged).chain(unused).unzip();
    GgufTokenizer {
        model: "gpt2".to_owned(),
        pre: Some("gpt-2".to_owned()),
        tokens,
        token_types,
        merges: MERGES.iter().map(|pair| (*pair).to_owned()).collect(),
        scores: Vec::new(),
        bos: Some(1),
        eos: Some(2),
        unk: None,
        add_bos: false,
        add_space_prefix: false,
    }
}
