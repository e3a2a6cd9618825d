//! Colours, on a terminal only and not under `NO_COLOR`.

use std::io::IsTerminal;

fn coloured(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn paint(code: &str, text: &str, terminal: bool) -> String {
    if coloured(terminal) { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// For standard error.
pub(crate) fn error(text: &str) -> String {
    paint("1;31", text, std::io::stderr().is_terminal())
}

/// For standard output: what matters least.
pub(crate) fn dim(text: &str) -> String {
    paint("2", text, std::io::stdout().is_terminal())
}

/// For standard output.
pub(crate) fn bold(text: &str) -> String {
    paint("1", text, std::io::stdout().is_terminal())
}
