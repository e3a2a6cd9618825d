//! Llama 3.x JSON format: the whole answer is `{"name": "f", "parameters": {...}}`, several separated by
//! `; `, sometimes behind `<|python_tag|>`.

use super::CallSyntax;

pub(super) const SYNTAX: CallSyntax = CallSyntax {
    template_marks: &["<|python_tag|>", "\"parameters\": ", "with the name of a function"],
    open: "<|python_tag|>",
    lead: "",
    trail: "",
    close: "",
    separator: Some(";"),
    list: false,
    bare: true,
    arguments_key: "parameters",
    id_length: 24,
};
