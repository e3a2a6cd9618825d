//! Marks that may be cut by the end of a piece of text.

/// Bytes at the end of `text` that are a proper beginning of `mark`, the longest such.
pub(super) fn held_tail(text: &str, mark: &str) -> usize {
    let longest = text.len().min(mark.len().saturating_sub(1));
    (1..=longest).rev().find(|length| text.as_bytes().ends_with(&mark.as_bytes()[..*length])).unwrap_or(0)
}
