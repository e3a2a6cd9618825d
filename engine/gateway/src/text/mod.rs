//! Text: everything between an API's strings and an engine's token ids.
//!
//! ```text
//! chat ──> checked messages ──> template ──> text with coded control tokens ──> ids ──> engine
//!          tools, response_format ──> grammar, compiled once for a verdict ────────────>
//! client <── deltas <── tool calls, reasoning <── stop strings <── detokenizer <── ids <── engine
//! ```
//!
//! Nothing here knows HTTP, routes or engines. All input is a stranger's: every step has a ceiling
//! (`TextLimits`) and every refusal names the field at fault.

mod chat;
mod detokenizer;
mod dumps;
mod error;
mod grammar;
mod limits;
mod model;
mod partial;
mod reply;
mod stop;
mod template;
mod tokenizer;
mod tools;
mod vocabulary;

pub use chat::ChatInput;
pub use detokenizer::Detokenizer;
pub use error::{ErrorClass, OpenError, TextError};
pub use grammar::{GrammarChecker, GrammarSpec};
pub use limits::TextLimits;
pub use model::{CompletionInput, Prepared, Prompt, TextModel};
pub use reply::{Delta, Ending, Flow, Reply};
pub use stop::{StopSearch, StopStrings};
pub use template::ChatTemplate;
pub use tokenizer::Tokenizer;
pub use tools::ToolChoice;
pub use vocabulary::{TokenText, Vocabulary};
