//! The functions that chat templates expect beside Jinja's own.

use minijinja::{Error, ErrorKind};

/// The kind of error that `raise_exception` makes: no builtin of a confined template raises it.
pub(super) const RAISED: ErrorKind = ErrorKind::BadInclude;

/// The template's own refusal; its words go to the client.
pub(super) fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(RAISED, message))
}

/// The present day in UTC, in `strftime` notation.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    if format.len() > 256 {
        return Err(Error::new(ErrorKind::InvalidOperation, "strftime_now: the format has over 256 bytes"));
    }
    let now = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC);
    jiff::fmt::strtime::format(format, &now)
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
}

/// `{% generation %}` marks the trained part of a conversation and changes no text. The engine here does
/// not know the tag, so it becomes a condition that always holds.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start + 2..start + length];
        let name = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str(&rest[..start + 2]);
        match name {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = &rest[start + length..];
    }
    out.push_str(rest);
    out
}
