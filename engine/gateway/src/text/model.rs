//! Everything about a model that concerns text, opened once and shared by all requests.

use std::path::Path;
use std::sync::Arc;

use shoal_checkpoint::{Checkpoint, TokenizerSource};
use shoal_wire::rpc;

use super::error::{OpenError, TextError};
use super::grammar::{GrammarChecker, GrammarSpec};
use super::limits::TextLimits;
use super::reply::{CallPlan, ReasoningStart, Reply, ReplyPlan};
use super::stop::StopStrings;
use super::template::ChatTemplate;
use super::tokenizer::Tokenizer;
use super::tools::{self, CallSyntax};
use super::vocabulary::{TokenText, Vocabulary};

mod conversation;

/// All methods are synchronous and some are CPU work in proportion to the text (`chat`, `completion`,
/// `encode`, `decode`): async callers run them on a blocking pool.
#[derive(Debug)]
pub struct TextModel {
    name: String,
    vocabulary: Arc<Vocabulary>,
    tokenizer: Tokenizer,
    /// Why there is none, in words, if there is none.
    template: Result<ChatTemplate, String>,
    call_syntax: &'static CallSyntax,
    /// The template writes the tools it gets.
    writes_tools: bool,
    /// The model writes `<think>`.
    reasons: bool,
    grammars: GrammarChecker,
    bos: Option<u32>,
    eos: Vec<u32>,
    max_context: usize,
    longest_token: usize,
    limits: TextLimits,
}

/// A prompt in the shape of OpenAI's completions API.
#[derive(Debug, Clone, Default)]
pub struct CompletionInput {
    pub prompt: Prompt,
    pub stop: Vec<String>,
    pub response_format: Option<GrammarSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Names of control tokens in it are read as those tokens.
    Text(String),
    Tokens(Vec<u32>),
}

impl Default for Prompt {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// A request as an engine needs it, and how to read what comes back.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub tokens: Vec<u32>,
    /// Compiled once already; engines will accept it.
    pub grammar: Option<rpc::Grammar>,
    reply: ReplyPlan,
}

impl Prepared {
    /// A fresh reader; one per choice.
    pub fn reply(&self) -> Reply {
        self.reply.start()
    }
}

impl TextModel {
    /// Opens the text side of the model file or directory at `path`; reads no weights.
    pub fn open(path: &Path, name: &str, limits: TextLimits) -> Result<Self, OpenError> {
        let checkpoint = Checkpoint::open(path)
            .map_err(|e| OpenError::Checkpoint { path: path.to_owned(), reason: e.to_string() })?;
        let config = checkpoint.config();
        let vocabulary = checkpoint.vocabulary();
        let parts = Parts {
            name: name.to_owned(),
            source: checkpoint.tokenizer(),
            template: checkpoint.chat_template().map(str::to_owned),
            bos: vocabulary.bos(),
            eos: vocabulary.eos().to_vec(),
            vocabulary: Vocabulary::from(&vocabulary),
            max_context: config.max_context,
        };
        Self::assemble(parts, limits)
    }

    fn assemble(parts: Parts, limits: TextLimits) -> Result<Self, OpenError> {
        let vocabulary = Arc::new(parts.vocabulary);
        let template = match &parts.template {
            None => Err("the model file has no chat template".to_owned()),
            Some(source) => {
                ChatTemplate::new(source, &vocabulary, parts.bos, parts.eos.first().copied(), &limits)
                    .map_err(|e| e.to_string())
            }
        };
        let source = template.as_ref().map_or("", ChatTemplate::source);
        let longest =
            (0..vocabulary.len() as u32).filter_map(|id| vocabulary.bytes(id)).map(<[u8]>::len).max();
        Ok(Self {
            name: parts.name,
            tokenizer: Tokenizer::new(&parts.source, &vocabulary)?,
            grammars: GrammarChecker::new(&vocabulary, &parts.eos, &limits)?,
            call_syntax: tools::syntax_of(source),
            writes_tools: template.as_ref().is_ok_and(ChatTemplate::writes_tools),
            reasons: source.contains("<think>"),
            template,
            bos: parts.bos,
            eos: parts.eos,
            max_context: parts.max_context,
            longest_token: longest.unwrap_or(1).max(1),
            vocabulary,
            limits,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// Tokens of prompt and output together.
    pub fn max_context(&self) -> usize {
        self.max_context
    }

    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Tokens that end an answer.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Why `chat` is refused for this model, if it is.
    pub fn chat_unavailable(&self) -> Option<&str> {
        self.template.as_ref().err().map(String::as_str)
    }

    /// A token as `logprobs` entries show it.
    pub fn token_text(&self, id: u32) -> TokenText {
        self.vocabulary.text(id)
    }

    /// Ids of a raw prompt: names of control tokens are read as those tokens, and with `add_special` the
    /// prompt begins as the model wants it (`bos`).
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        self.check_length(text, "prompt")?;
        let mut ids = if add_special { self.tokenizer.prefix().to_vec() } else { Vec::new() };
        self.tokenizer.encode_with_controls(text, &mut ids)?;
        Ok(ids)
    }

    /// The text of `ids`. With `skip_control` control tokens are left out, else shown by name.
    pub fn decode(&self, ids: &[u32], skip_control: bool) -> Result<String, TextError> {
        let mut bytes = Vec::new();
        for (index, &id) in ids.iter().enumerate() {
            let token = self.vocabulary.bytes(id).ok_or_else(|| self.unknown_id("tokens", index, id))?;
            if !(skip_control && self.vocabulary.is_control(id)) {
                bytes.extend_from_slice(token);
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let text =
            if self.tokenizer.space_prefix() { text.strip_prefix(' ').unwrap_or(&text) } else { &text };
        Ok(text.to_owned())
    }

    /// Prepares a raw prompt.
    pub fn completion(&self, input: &CompletionInput) -> Result<Prepared, TextError> {
        let stops = StopStrings::new(&input.stop, &self.limits)?;
        let tokens = match &input.prompt {
            Prompt::Text(text) => self.encode(text, true)?,
            Prompt::Tokens(ids) => {
                if let Some((index, id)) =
                    ids.iter().enumerate().find(|(_, id)| self.vocabulary.bytes(**id).is_none())
                {
                    return Err(self.unknown_id("prompt", index, *id));
                }
                ids.clone()
            }
        };
        let grammar = input.response_format.as_ref().map(|spec| self.checked_grammar(spec)).transpose()?;
        let reply = self.reply_plan(stops, None, None);
        Ok(Prepared { tokens, grammar, reply })
    }

    fn checked_grammar(&self, spec: &GrammarSpec) -> Result<rpc::Grammar, TextError> {
        let (grammar, param) = spec.to_wire();
        self.grammars.check(&grammar, param)?;
        Ok(grammar)
    }

    fn reply_plan(
        &self,
        stops: StopStrings,
        reasoning: Option<ReasoningStart>,
        calls: Option<CallPlan>,
    ) -> ReplyPlan {
        let think = reasoning.iter().flat_map(|_| ["<think>", "</think>"]);
        let marks = calls.iter().flat_map(|plan| [plan.syntax.open, plan.syntax.close]);
        let shown = think.chain(marks).filter_map(|mark| self.vocabulary.control(mark)).collect();
        ReplyPlan { vocabulary: Arc::clone(&self.vocabulary), stops, shown, reasoning, calls }
    }

    /// No token is longer than the longest one, so a longer text cannot fit the context.
    fn check_length(&self, text: &str, param: &str) -> Result<(), TextError> {
        let fits = self.max_context.saturating_mul(self.longest_token).min(self.limits.input_bytes);
        if text.len() <= fits {
            return Ok(());
        }
        let message = format!("{} bytes of text; at most {fits} are allowed for this model", text.len());
        Err(TextError::invalid(param, message))
    }

    fn unknown_id(&self, param: &str, index: usize, id: u32) -> TextError {
        let message =
            format!("{param}[{index}] is {id}; token ids of this model are below {}", self.vocabulary.len());
        TextError::invalid(format!("{param}[{index}]"), message)
    }
}

/// What a model consists of, wherever it was read from.
struct Parts {
    name: String,
    source: TokenizerSource,
    template: Option<String>,
    vocabulary: Vocabulary,
    bos: Option<u32>,
    eos: Vec<u32>,
    max_context: usize,
}

#[cfg(test)]
mod tests;
