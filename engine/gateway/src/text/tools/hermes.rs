//! Hermes format, used by Qwen2.5, Qwen3 and many ChatML models:
//! `<tool_call>\n{"name": "f", "arguments": {...}}\n</tool_call>`, once per call.

use super::CallSyntax;

pub(super) const SYNTAX: CallSyntax = CallSyntax {
    template_marks: &["<tool_call>"],
    open: "<tool_call>",
    lead: "\n",
    trail: "\n",
    close: "</tool_call>",
    separator: None,
    list: false,
    bare: false,
    arguments_key: "arguments",
    id_length: 24,
};
