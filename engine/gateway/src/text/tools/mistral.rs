//! Mistral format: `[TOOL_CALLS][{"name": "f", "arguments": {...}}, ...]`. The mark is a control token, and
//! the template demands call ids of nine characters.

use super::CallSyntax;

pub(super) const SYNTAX: CallSyntax = CallSyntax {
    template_marks: &["[TOOL_CALLS]"],
    open: "[TOOL_CALLS]",
    lead: "[",
    trail: "]",
    close: "]",
    separator: Some(","),
    list: true,
    bare: false,
    arguments_key: "arguments",
    id_length: 9,
};
