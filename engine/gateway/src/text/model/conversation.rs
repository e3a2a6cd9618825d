//! A chat request on its way to a prompt: tools, grammar, template, tokens.

use serde_json::Value as Json;
use shoal_wire::rpc;

use super::{Prepared, TextModel};
use crate::text::chat::{self, ChatInput, Checked};
use crate::text::error::TextError;
use crate::text::reply::{CallPlan, ReasoningStart};
use crate::text::stop::StopStrings;
use crate::text::template::{ChatTemplate, Conversation};
use crate::text::tools::{self, Tool, ToolChoice};

impl TextModel {
    /// Prepares a chat.
    pub fn chat(&self, input: &ChatInput) -> Result<Prepared, TextError> {
        let template = self.template.as_ref().map_err(|why| {
            TextError::invalid("model", format!("the model {} cannot chat: {why}", self.name))
        })?;
        let stops = StopStrings::new(&input.stop, &self.limits)?;
        let checked = chat::check(input, &self.limits)?;
        let tools = offered(&checked.tools, &input.tool_choice)?;
        let grammar = self.chat_grammar(input, &tools)?;
        let rendered = self.render(template, input, checked, !tools.is_empty(), grammar.is_some())?;
        self.check_length(&rendered, "messages")?;
        let mut tokens = Vec::new();
        self.tokenizer.encode_segments(&template.segments(&rendered), &mut tokens)?;
        let reasoning = (self.reasons && input.separate_reasoning).then(|| reasoning_start(&rendered));
        let calls = (!tools.is_empty()).then(|| CallPlan {
            syntax: self.call_syntax,
            offered: tools.iter().map(|tool| tool.name.clone()).collect(),
        });
        let reply = self.reply_plan(stops, reasoning, calls);
        Ok(Prepared { tokens, grammar, reply })
    }

    fn render(
        &self,
        template: &ChatTemplate,
        input: &ChatInput,
        checked: Checked,
        with_tools: bool,
        with_grammar: bool,
    ) -> Result<String, TextError> {
        let mut kwargs = chat::check_kwargs(&input.template_kwargs, &template.options())?;
        if with_grammar && template.has_option("enable_thinking") {
            // A grammar describes the answer alone; there is no room in it for reasoning.
            kwargs.entry("enable_thinking").or_insert(Json::Bool(false));
        }
        let last = input.continue_final_message.then(|| checked.messages.last().cloned()).flatten();
        let tools = if with_tools { checked.tools } else { Vec::new() };
        let (messages, tools) = if self.writes_tools {
            (checked.messages, tools)
        } else {
            (tools::rewrite_for_plain_template(checked.messages, &tools), Vec::new())
        };
        let conversation =
            Conversation { messages, tools, add_generation_prompt: input.add_generation_prompt, kwargs };
        let rendered = template.render(&conversation)?;
        match last {
            None => Ok(rendered),
            Some(last) => {
                cut_behind(rendered, last.get("content").and_then(Json::as_str).unwrap_or_default())
            }
        }
    }

    /// The constraint of a chat: its `response_format`, its forced call, or either.
    fn chat_grammar(&self, input: &ChatInput, tools: &[Tool]) -> Result<Option<rpc::Grammar>, TextError> {
        let forced: Option<Vec<&Tool>> = match &input.tool_choice {
            ToolChoice::Required => Some(tools.iter().collect()),
            ToolChoice::Named(name) => Some(tools.iter().filter(|tool| tool.name == *name).collect()),
            ToolChoice::Auto | ToolChoice::None => None,
        };
        let (calls, format) = match (forced, &input.response_format) {
            (None, None) => return self.check_tools(tools).map(|()| None),
            (None, Some(spec)) if tools.is_empty() => return self.checked_grammar(spec).map(Some),
            (None, Some(spec)) => (tools.iter().collect(), Some(spec)),
            (Some(calls), _) => (calls, None),
        };
        let otherwise = format
            .map(|spec| {
                spec.schema().ok_or_else(|| {
                    let message = "regex and grammar cannot be combined with tools; set tool_choice to none";
                    TextError::invalid("response_format", message)
                })
            })
            .transpose()?;
        let parallel = input.parallel_tool_calls && !matches!(input.tool_choice, ToolChoice::Named(_));
        let grammar =
            tools::call_grammar(self.call_syntax, &calls, parallel, otherwise.as_ref(), &self.vocabulary);
        self.grammars.check(&grammar, "tools")?;
        Ok(Some(grammar))
    }

    /// Free calls are not constrained, but a schema that could not be is refused all the same, so that a
    /// request does not begin to fail when its `tool_choice` changes.
    fn check_tools(&self, tools: &[Tool]) -> Result<(), TextError> {
        if tools.is_empty() {
            return Ok(());
        }
        let all: Vec<&Tool> = tools.iter().collect();
        let grammar = tools::call_grammar(self.call_syntax, &all, false, None, &self.vocabulary);
        self.grammars.check(&grammar, "tools")
    }
}

/// The tools that may be called; none under `none`.
fn offered(tools: &[Json], choice: &ToolChoice) -> Result<Vec<Tool>, TextError> {
    let parsed = tools.iter().enumerate().map(|(index, tool)| Tool::from_json(tool, index));
    let parsed: Vec<Tool> = parsed.collect::<Result<_, _>>()?;
    for (index, tool) in parsed.iter().enumerate() {
        if parsed[..index].iter().any(|earlier| earlier.name == tool.name) {
            let message = format!("tools[{index}]: the function {} is there twice", tool.name);
            return Err(TextError::invalid(format!("tools[{index}].function.name"), message));
        }
    }
    match choice {
        ToolChoice::None => Ok(Vec::new()),
        ToolChoice::Required if parsed.is_empty() => {
            Err(TextError::invalid("tool_choice", "tool_choice is required, but there are no tools"))
        }
        ToolChoice::Named(name) if !parsed.iter().any(|tool| tool.name == *name) => Err(TextError::invalid(
            "tool_choice",
            format!("tool_choice names {name:?}, which is not in tools"),
        )),
        _ => Ok(parsed),
    }
}

/// The prompt up to the end of its last message's content.
fn cut_behind(rendered: String, content: &str) -> Result<String, TextError> {
    let wrong = |message: &str| TextError::invalid("continue_final_message", message);
    if content.trim().is_empty() {
        return Err(wrong("the last message has no text to continue"));
    }
    // A template may trim a message; then so much is continued as it kept.
    for text in [content, content.trim()] {
        if let Some(at) = rendered.rfind(text) {
            let mut rendered = rendered;
            rendered.truncate(at + text.len());
            return Ok(rendered);
        }
    }
    Err(wrong("the chat template changes the last message, so it cannot be continued"))
}

fn reasoning_start(rendered: &str) -> ReasoningStart {
    let inside = rendered.trim_end().ends_with("<think>");
    if inside { ReasoningStart::Inside } else { ReasoningStart::Outside }
}
