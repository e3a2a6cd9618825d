//! Colours, on a terminal only and not under `NO_COLOR` or `--no-color`.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicBool, Ordering},
};

static PLAIN: AtomicBool = AtomicBool::new(false);

/// No colours from now on.
pub fn plain() {
    PLAIN.store(true, Ordering::Relaxed);
}

fn coloured(terminal: bool) -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    terminal && !unwanted && !PLAIN.load(Ordering::Relaxed)
}

fn paint(code: &str, text: &str, terminal: bool) -> String {
    if coloured(terminal) { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// For standard error.
pub fn error(text: &str) -> String {
    paint("1;31", text, std::io::stderr().is_terminal())
}

/// For standard output: what matters least.
pub fn dim(text: &str) -> String {
    paint("2", text, std::io::stdout().is_terminal())
}

/// For standard output.
pub fn bold(text: &str) -> String {
    paint("1", text, std::io::stdout().is_terminal())
}

/// For standard output: what is as it should be.
pub fn good(text: &str) -> String {
    paint("32", text, std::io::stdout().is_terminal())
}

/// For standard output: what is worth a look.
pub fn warning(text: &str) -> String {
    paint("33", text, std::io::stdout().is_terminal())
}

/// For standard output: what is wrong.
pub fn bad(text: &str) -> String {
    paint("31", text, std::io::stdout().is_terminal())
}
