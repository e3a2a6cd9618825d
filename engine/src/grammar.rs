//! Grammars as token masks.
//!
//! The engine compiles and applies them, because a mask depends on the token just sampled. Everything that a
//! grammar can cost is bounded: source bytes, nesting, compiled size, work per mask.

use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Logger, ParserFactory, panic_utils};
use shoal_wire::limits::MAX_GRAMMAR_BYTES;
use shoal_wire::rpc::grammar::Kind;

use crate::request::Class;

/// Open brackets inside each other; the parsers recurse on them.
const MAX_NESTING: usize = 200;
/// Memory of a grammar's lexer: one to two kB per state.
const MAX_LEXER_STATES: usize = 20_000;

#[derive(Debug, thiserror::Error)]
pub enum GrammarError {
    #[error("`grammar.source` has {0} bytes; at most {MAX_GRAMMAR_BYTES} are allowed")]
    TooLong(usize),
    #[error("`grammar.source` nests brackets {0} deep; at most {MAX_NESTING} are allowed")]
    TooDeep(usize),
    #[error("`grammar.source` is not JSON: {0}")]
    Json(serde_json::Error),
    #[error("`grammar.source` does not compile: {0}")]
    Compile(String),
    #[error("the model has no end-of-sequence token, which grammars need")]
    NoEndToken,
    #[error("grammar tables of this vocabulary: {0}")]
    Vocabulary(String),
    #[error("token {token} does not follow the grammar: {reason}")]
    Token { token: u32, reason: String },
}

impl GrammarError {
    pub fn class(&self) -> Class {
        match self {
            Self::NoEndToken | Self::Vocabulary(_) => Class::Fatal,
            _ => Class::Invalid,
        }
    }
}

/// Tables of one vocabulary, shared by all grammars. Building them takes a good part of a second for a large
/// vocabulary; compiling takes milliseconds and must not run on an async worker or the scheduler thread.
#[derive(Clone)]
pub struct GrammarCompiler {
    factory: Arc<ParserFactory>,
}

impl std::fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarCompiler").finish_non_exhaustive()
    }
}

impl GrammarCompiler {
    /// `tokens` gives each id's bytes, in order, and whether it is a special token, which text can never
    /// produce; `end` are the ids that end a sequence.
    pub fn new(tokens: impl Iterator<Item = (Vec<u8>, bool)>, end: &[u32]) -> Result<Self, GrammarError> {
        let words: Vec<Vec<u8>> = tokens.map(|(bytes, special)| trie_word(bytes, special)).collect();
        let end: Vec<u32> = end.iter().copied().filter(|id| (*id as usize) < words.len()).collect();
        let first = *end.first().ok_or(GrammarError::NoEndToken)?;
        panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let trie =
                TokTrie::from(&TokRxInfo::new(words.len() as u32, first), &words).with_eos_tokens(&end);
            let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            ParserFactory::new_simple(&environment)
        }))
        .map(|factory| Self { factory: Arc::new(factory) })
        .map_err(|error| GrammarError::Vocabulary(error.to_string()))
    }

    /// A matcher at the grammar's start.
    pub fn compile(&self, kind: Kind, source: &str) -> Result<Matcher, GrammarError> {
        check_size(source)?;
        let grammar = match kind {
            Kind::JsonSchema => {
                TopLevelGrammar::from_json_schema(serde_json::from_str(source).map_err(GrammarError::Json)?)
            }
            Kind::Regex => TopLevelGrammar::from_regex(source),
            Kind::Lark => TopLevelGrammar::from_lark(source.to_owned()),
        };
        let compiled = panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.factory.create_parser_from_init_ext(
                llguidance::api::GrammarInit::Serialized(grammar),
                Logger::new(0, 0),
                InferenceCapabilities::default(),
                limits(),
            )
        }));
        let matcher = llguidance::Matcher::new(compiled);
        match matcher.get_error() {
            None => Ok(Matcher { inner: matcher }),
            Some(reason) => Err(GrammarError::Compile(reason)),
        }
    }
}

fn limits() -> ParserLimits {
    ParserLimits { max_lexer_states: MAX_LEXER_STATES, verbose_errors: false, ..ParserLimits::default() }
}

/// Special tokens live behind a marker byte that no text contains. An id without bytes is never allowed.
fn trie_word(bytes: Vec<u8>, special: bool) -> Vec<u8> {
    if special && !bytes.is_empty() {
        [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes.as_slice()].concat()
    } else {
        bytes
    }
}

fn check_size(source: &str) -> Result<(), GrammarError> {
    if source.len() > MAX_GRAMMAR_BYTES {
        return Err(GrammarError::TooLong(source.len()));
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > MAX_NESTING { Err(GrammarError::TooDeep(deepest)) } else { Ok(()) }
}

/// Where one output stands in its grammar.
#[derive(Clone)]
pub struct Matcher {
    inner: llguidance::Matcher,
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").field("finished", &self.is_finished()).finish()
    }
}

impl Matcher {
    /// Sets the logits of tokens that cannot follow to negative infinity.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), GrammarError> {
        let allowed: SimpleVob =
            self.inner.compute_mask_or_eos().map_err(|error| GrammarError::Compile(error.to_string()))?;
        let covered = allowed.len().min(logits.len());
        logits[covered..].fill(f32::NEG_INFINITY);
        allowed.iter_unset_entries(|id| {
            if let Some(logit) = logits.get_mut(id) {
                *logit = f32::NEG_INFINITY;
            }
        });
        Ok(())
    }

    /// Advances over a token of the output.
    pub fn consume(&mut self, token: u32) -> Result<(), GrammarError> {
        self.inner
            .consume_token(token)
            .map_err(|error| GrammarError::Token { token, reason: error.to_string() })
    }

    /// True if the output is complete and nothing may follow.
    pub fn is_finished(&self) -> bool {
        self.inner.is_stopped()
    }

    /// True if the output may end here, whether or not it can go on.
    pub fn may_end(&mut self) -> bool {
        self.inner.is_accepting().unwrap_or(false)
    }

    /// An independent copy, for another output of the same request.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { inner: self.inner.deep_clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids 0..256 are bytes; 256 is the end, special.
    fn compiler() -> GrammarCompiler {
        let bytes = (0..=255_u8).map(|byte| (vec![byte], false));
        GrammarCompiler::new(bytes.chain([(b"<end>".to_vec(), true)]), &[256]).expect("byte vocabulary")
    }

    fn allowed(matcher: &mut Matcher) -> Vec<u32> {
        let mut logits = vec![0.0; 257];
        matcher.mask(&mut logits).expect("mask");
        (0..257).filter(|id| logits[*id as usize] == 0.0).collect()
    }

    #[test]
    fn a_regex_allows_only_what_continues_it_and_ends_by_itself() {
        let mut matcher = compiler().compile(Kind::Regex, "ab|ac").expect("regex");
        assert_eq!(allowed(&mut matcher), [u32::from(b'a')]);
        matcher.consume(u32::from(b'a')).expect("a");
        assert_eq!(allowed(&mut matcher), [u32::from(b'b'), u32::from(b'c')]);
        assert!(!matcher.is_finished());
        matcher.consume(u32::from(b'c')).expect("c");
        assert!(matcher.is_finished());
    }

    #[test]
    fn an_output_that_may_end_or_go_on_allows_the_end_token() {
        let mut matcher = compiler().compile(Kind::Regex, "a+").expect("regex");
        matcher.consume(u32::from(b'a')).expect("a");
        assert_eq!(allowed(&mut matcher), [u32::from(b'a'), 256]);
    }

    #[test]
    fn a_schema_is_followed_byte_for_byte() {
        let schema = r#"{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],"additionalProperties":false}"#;
        let mut matcher = compiler().compile(Kind::JsonSchema, schema).expect("schema");
        for byte in br#"{"n": 12}"# {
            matcher.consume(u32::from(*byte)).expect("valid output");
        }
        assert!(matcher.is_finished());
        let mut other = compiler().compile(Kind::JsonSchema, schema).expect("schema");
        other.consume(u32::from(b'{')).expect("brace");
        assert!(other.consume(u32::from(b'x')).is_err(), "x opens no property");
    }

    #[test]
    fn a_fork_does_not_move_with_its_origin() {
        let mut one = compiler().compile(Kind::Lark, "start: \"ab\"").expect("lark");
        let mut two = one.fork();
        one.consume(u32::from(b'a')).expect("a");
        assert_eq!(allowed(&mut two), [u32::from(b'a')]);
        assert_eq!(allowed(&mut one), [u32::from(b'b')]);
    }

    #[test]
    fn a_grammar_that_would_explode_is_expanded_only_as_far_as_it_is_used() {
        let mut matcher =
            compiler().compile(Kind::Regex, "(((a|b){1000}){1000}){1000}").expect("small source");
        for _ in 0..20 {
            assert_eq!(allowed(&mut matcher), [u32::from(b'a'), u32::from(b'b')]);
            matcher.consume(u32::from(b'b')).expect("b");
        }
    }

    #[test]
    fn hostile_sources_are_refused_in_words() {
        let compiler = compiler();
        let cases = [
            (Kind::Regex, "(".repeat(100_000)),
            (Kind::Regex, "(".to_owned()),
            (Kind::JsonSchema, "{".to_owned()),
            (Kind::JsonSchema, r#"{"type":"wrong"}"#.to_owned()),
            (Kind::Lark, "start: other".to_owned()),
            (Kind::Lark, "x".repeat(MAX_GRAMMAR_BYTES + 1)),
        ];
        for (kind, source) in cases {
            let error = compiler.compile(kind, &source).expect_err(&source[..source.len().min(40)]);
            assert!(error.to_string().contains("grammar.source"), "{error}");
            assert_eq!(error.class(), Class::Invalid);
        }
    }
}
