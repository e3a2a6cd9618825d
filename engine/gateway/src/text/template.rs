//! A model's own chat template, run in confinement.
//!
//! A template is code from a model file. It sees the conversation and a clock, nothing else: no files, no
//! other templates, bounded fuel (which also bounds memory), bounded output. Its failures are the request's
//! (400), never the process's.

mod functions;
mod json;
mod marks;

use std::collections::BTreeSet;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json};

use super::error::{OpenError, TextError};
use super::limits::TextLimits;
use super::vocabulary::Vocabulary;
pub(super) use marks::{Marks, Segment, replace_mark_characters};

/// Bytes of a template's source.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Names that a request's `chat_template_kwargs` cannot set: they are the conversation itself, or functions.
const RESERVED: [&str; 15] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "raise_exception",
    "strftime_now",
    "range",
    "dict",
    "namespace",
    "lipsum",
    "debug",
];
const NAME: &str = "chat_template";

/// What a template is rendered with; already checked against the limits.
#[derive(Debug, Default, Clone)]
pub(super) struct Conversation {
    pub messages: Vec<Json>,
    pub tools: Vec<Json>,
    pub add_generation_prompt: bool,
    pub kwargs: Map<String, Json>,
}

pub struct ChatTemplate {
    environment: Environment<'static>,
    marks: Arc<Marks>,
    source: String,
    /// Variables the template reads beside the reserved ones: what a request may set.
    options: BTreeSet<String>,
    bos: String,
    eos: String,
    output_bytes: usize,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("options", &self.options).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Compiles `source`. `bos` and `eos` are ids whose tokens the template may write by variable.
    pub(super) fn new(
        source: &str,
        vocabulary: &Vocabulary,
        bos: Option<u32>,
        eos: Option<u32>,
        limits: &TextLimits,
    ) -> Result<Self, OpenError> {
        if source.len() > MAX_SOURCE_BYTES {
            let message = format!("{} bytes of source; at most {MAX_SOURCE_BYTES} are allowed", source.len());
            return Err(OpenError::Template(message));
        }
        let marks = Arc::new(Marks::new(vocabulary)?);
        let coded = marks.encode(&functions::without_generation_tags(source));
        let mut environment = environment(limits)?;
        environment.add_template_owned(NAME, coded).map_err(|e| OpenError::Template(describe(&e)))?;
        let options = options(&environment)?;
        let token = |id: Option<u32>| id.map(marks::code).unwrap_or_default();
        let template = Self {
            environment,
            options,
            bos: token(bos),
            eos: token(eos),
            marks,
            source: source.to_owned(),
            output_bytes: limits.input_bytes * 2 + MAX_SOURCE_BYTES,
        };
        template.refuse_composed_marks()?;
        Ok(template)
    }

    /// The source as the model file has it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names a request may set by `chat_template_kwargs`.
    pub fn options(&self) -> impl Iterator<Item = &str> + Clone {
        self.options.iter().map(String::as_str)
    }

    pub(super) fn has_option(&self, name: &str) -> bool {
        self.options.contains(name)
    }

    /// True if the template itself writes the tools it is given.
    pub(super) fn writes_tools(&self) -> bool {
        // `tools` is read by the template exactly if it is among its free variables; the reserved names are
        // removed from `options`, so the question goes to the compiled template.
        self.environment
            .get_template(NAME)
            .is_ok_and(|template| template.undeclared_variables(false).contains("tools"))
    }

    /// The conversation as text in which only the template's own control tokens are coded.
    pub(super) fn render(&self, conversation: &Conversation) -> Result<String, TextError> {
        let template = self.environment.get_template(NAME).map_err(|e| refusal(&e))?;
        let mut output = Bounded { text: Vec::new(), limit: self.output_bytes };
        template.render_captured_to(self.context(conversation), &mut output).map_err(|e| refusal(&e))?;
        String::from_utf8(output.text)
            .map_err(|_| TextError::invalid("messages", "the chat template wrote text that is not UTF-8"))
    }

    /// Cuts rendered text into ordinary text and control tokens.
    pub(super) fn segments<'t>(&self, rendered: &'t str) -> Vec<Segment<'t>> {
        self.marks.split(rendered)
    }

    fn context(&self, conversation: &Conversation) -> Value {
        let list = |values: &[Json]| values.iter().map(json::to_template).collect::<Vec<_>>();
        let tools = match conversation.tools.as_slice() {
            [] => Value::from(()),
            tools => Value::from(list(tools)),
        };
        let fixed = [
            ("messages", Value::from(list(&conversation.messages))),
            ("tools", tools),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(conversation.add_generation_prompt)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
        ];
        let chosen =
            conversation.kwargs.iter().map(|(name, value)| (name.as_str(), json::to_template(value)));
        Value::from_pairs(chosen.chain(fixed))
    }

    /// A template that puts control tokens together at run time (`'<|' + role + '|>'`) cannot be told from
    /// a user who does the same; serving it would either break the model's format or let users forge turns.
    fn refuse_composed_marks(&self) -> Result<(), OpenError> {
        let message = |role: &str| serde_json::json!({ "role": role, "content": "a" });
        let full = vec![message("system"), message("user"), message("assistant"), message("user")];
        for messages in [full.clone(), full[1..].to_vec()] {
            let probe = Conversation { messages, add_generation_prompt: true, ..Conversation::default() };
            let Ok(rendered) = self.render(&probe) else { continue };
            if let Some(name) = self.marks.find_uncoded(&rendered) {
                return Err(OpenError::Template(format!(
                    "it composes the control token {name} from parts; only templates that spell control \
                     tokens out can be served"
                )));
            }
            return Ok(());
        }
        Ok(())
    }
}

fn environment(limits: &TextLimits) -> Result<Environment<'static>, OpenError> {
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|e| OpenError::Template(describe(&e)))?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_fuel(Some(limits.template_fuel));
    environment.set_recursion_limit(100);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", functions::raise_exception);
    environment.add_function("strftime_now", functions::strftime_now);
    environment.add_filter("tojson", json::tojson);
    Ok(environment)
}

fn options(environment: &Environment<'_>) -> Result<BTreeSet<String>, OpenError> {
    let template = environment.get_template(NAME).map_err(|e| OpenError::Template(describe(&e)))?;
    let names = template.undeclared_variables(false);
    Ok(names.into_iter().filter(|name| !RESERVED.contains(&name.as_str())).collect())
}

fn refusal(error: &minijinja::Error) -> TextError {
    let message = match error.kind() {
        ErrorKind::OutOfFuel => {
            "the conversation costs the chat template more work than is allowed".to_owned()
        }
        ErrorKind::WriteFailure => "the conversation grew beyond the size that is allowed".to_owned(),
        _ => format!("the chat template refused the conversation: {}", describe(error)),
    };
    TextError::invalid("messages", message)
}

/// Kind, detail and line; never the template's source or its variables.
fn describe(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let what: String = what.chars().take(500).collect();
    match error.line() {
        Some(line) if error.kind() != functions::RAISED => format!("{what} (template line {line})"),
        _ => what,
    }
}

/// Fails the render instead of growing without end.
struct Bounded {
    text: Vec<u8>,
    limit: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.text.len() + bytes.len() > self.limit {
            return Err(std::io::Error::other("output limit"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
