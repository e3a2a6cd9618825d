//! Compiles a grammar once before it is sent on, so that a bad one is a 400 here and never reaches an engine.
//!
//! A grammar is a program from a stranger. Size, nesting and number of definitions are counted first; the
//! compiler has a work budget of its own; it runs on a thread that is given up when its time is over. At
//! most a few such threads exist, so grammars cannot take the machine.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Logger, ParserFactory, TokenParser, panic_utils};
use parking_lot::Mutex;
use shoal_wire::limits::GRAMMAR_STACK_BYTES;
use shoal_wire::rpc::{self, grammar::Kind};

use super::verdicts::{Verdict, Verdicts};
use crate::text::error::{OpenError, TextError};
use crate::text::limits::TextLimits;
use crate::text::vocabulary::Vocabulary;

/// Brackets inside each other; the parsers recurse on them.
const MAX_NESTING: usize = 100;
/// Rules and terminals of a Lark grammar; compiling a chain of them takes quadratic time.
const MAX_DEFINITIONS: usize = 1000;
/// Characters of a compiler's message shown to the client.
const MAX_MESSAGE_CHARS: usize = 400;

pub struct GrammarChecker {
    factory: Arc<ParserFactory>,
    running: Arc<AtomicUsize>,
    verdicts: Mutex<Verdicts>,
    limits: TextLimits,
}

impl std::fmt::Debug for GrammarChecker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarChecker").field("running", &self.running).finish_non_exhaustive()
    }
}

impl GrammarChecker {
    pub fn new(vocabulary: &Vocabulary, eos: &[u32], limits: &TextLimits) -> Result<Self, OpenError> {
        let words: Vec<Vec<u8>> = (0..vocabulary.len() as u32).map(|id| trie_word(vocabulary, id)).collect();
        let end = eos.first().copied().unwrap_or_default();
        let factory = panic_utils::catch_unwind(AssertUnwindSafe(|| {
            let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words).with_eos_tokens(eos);
            let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            // Masks are never computed here, so nothing is prepared for them.
            ParserFactory::new(&environment, InferenceCapabilities::default(), &[])
        }))
        .map_err(|e| OpenError::Grammar(e.to_string()))?;
        Ok(Self {
            factory: Arc::new(factory),
            running: Arc::new(AtomicUsize::new(0)),
            verdicts: Mutex::new(Verdicts::new(limits.grammar_cache)),
            limits: limits.clone(),
        })
    }

    /// Refuses what does not compile within the limits, naming `param`. Blocks for up to the time limit.
    pub fn check(&self, grammar: &rpc::Grammar, param: &str) -> Result<(), TextError> {
        let refused = |message: String| TextError::invalid(param, format!("{param}: {message}"));
        self.check_shape(grammar).map_err(refused)?;
        let mut hash = blake3::Hasher::new();
        hash.update(&grammar.kind.to_le_bytes()).update(grammar.source.as_bytes());
        let digest = *hash.finalize().as_bytes();
        if let Some(verdict) = self.verdicts.lock().get(&digest) {
            return verdict.map_err(refused);
        }
        let verdict = self.compile_in_time(grammar, param)?;
        self.verdicts.lock().insert(digest, verdict.clone());
        verdict.map_err(refused)
    }

    /// The compiled grammar at its start.
    #[cfg(test)]
    pub(in crate::text) fn matcher(&self, grammar: &rpc::Grammar) -> llguidance::Matcher {
        llguidance::Matcher::new(parser(&self.factory, grammar))
    }

    #[cfg(test)]
    pub(super) fn forbid_compiling(&mut self) {
        self.limits.grammar_threads = 0;
    }

    fn check_shape(&self, grammar: &rpc::Grammar) -> Result<(), String> {
        let (size, limit) = (grammar.source.len(), self.limits.grammar_bytes);
        if size > limit {
            return Err(format!("{size} bytes; at most {limit} are allowed"));
        }
        if deepest_bracket(&grammar.source) > MAX_NESTING {
            return Err(format!("brackets are nested over {MAX_NESTING} deep"));
        }
        if grammar.kind() == Kind::Lark && grammar.source.matches(':').count() > MAX_DEFINITIONS {
            return Err(format!("over {MAX_DEFINITIONS} definitions"));
        }
        Ok(())
    }

    /// The verdict of a compiling thread; an error if there is no thread free.
    fn compile_in_time(&self, grammar: &rpc::Grammar, param: &str) -> Result<Verdict, TextError> {
        let busy = || TextError::busy(param, "too many new grammars are being compiled; try again shortly");
        let slot = Slot::take(&self.running, self.limits.grammar_threads).ok_or_else(busy)?;
        let (sender, receiver) = sync_channel(1);
        let (factory, grammar) = (Arc::clone(&self.factory), grammar.clone());
        let work = move || {
            let verdict = compile(&factory, &grammar);
            drop(slot);
            // The requester may have given up.
            let _ = sender.send(verdict);
        };
        let thread = std::thread::Builder::new().name("grammar".to_owned()).stack_size(GRAMMAR_STACK_BYTES);
        thread.spawn(work).map_err(|_| busy())?;
        match receiver.recv_timeout(self.limits.grammar_time) {
            Ok(verdict) => Ok(verdict),
            // Not a verdict to remember: the machine may have been busy.
            Err(RecvTimeoutError::Timeout) => {
                let message = format!("{param}: compiling it takes over {:?}", self.limits.grammar_time);
                Err(TextError::invalid(param, message))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(Err("the compiler failed on it".to_owned())),
        }
    }
}

fn compile(factory: &ParserFactory, grammar: &rpc::Grammar) -> Verdict {
    parser(factory, grammar).map(|_| ()).map_err(|e| first_words(&e.to_string()))
}

fn parser(factory: &ParserFactory, grammar: &rpc::Grammar) -> anyhow::Result<TokenParser> {
    let source = &grammar.source;
    let parsed = match grammar.kind() {
        Kind::JsonSchema => TopLevelGrammar::from_json_schema(serde_json::from_str(source)?),
        Kind::Regex => TopLevelGrammar::from_regex(source),
        Kind::Lark => TopLevelGrammar::from_lark(source.clone()),
    };
    let limits = ParserLimits { max_lexer_states: 20_000, verbose_errors: false, ..ParserLimits::default() };
    factory.create_parser_from_init_ext(
        GrammarInit::Serialized(parsed),
        Logger::new(0, 0),
        InferenceCapabilities::default(),
        limits,
    )
}

/// A message for a client: its first lines, without a trace.
fn first_words(message: &str) -> String {
    let message = message.split("<backtrace>").next().unwrap_or_default().trim();
    message.chars().take(MAX_MESSAGE_CHARS).collect()
}

/// Control tokens live behind a marker byte that no text contains.
fn trie_word(vocabulary: &Vocabulary, id: u32) -> Vec<u8> {
    let bytes = vocabulary.bytes(id).unwrap_or_default();
    if vocabulary.is_control(id) && !bytes.is_empty() {
        return [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat();
    }
    bytes.to_vec()
}

fn deepest_bracket(source: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// One of the compiling threads; free again when dropped, even if its work panics.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(running: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let more = |now: usize| (now < limit).then_some(now + 1);
        running.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self(Arc::clone(running)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
