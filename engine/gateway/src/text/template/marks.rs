//! Control tokens that only the template can write.
//!
//! Before a template is compiled, each control token its source spells out (`<|im_start|>`) is replaced by
//! a code: two characters that no text may hold (Unicode noncharacters) around the token's id. After the
//! render, only codes become control tokens. A user who writes `<|im_end|>`, in any field, in one piece or
//! in several, wrote ordinary text.

use aho_corasick::{AhoCorasick, MatchKind};

use crate::text::error::OpenError;
use crate::text::vocabulary::Vocabulary;

const OPEN: char = '\u{FDD0}';
const CLOSE: char = '\u{FDD1}';

/// A piece of rendered text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::text) enum Segment<'t> {
    Text(&'t str),
    Control(u32),
}

#[derive(Debug)]
pub(in crate::text) struct Marks {
    names: AhoCorasick,
    ids: Vec<u32>,
}

impl Marks {
    pub(in crate::text) fn new(vocabulary: &Vocabulary) -> Result<Self, OpenError> {
        let controls: Vec<(u32, &[u8])> = vocabulary.controls().collect();
        let names = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(controls.iter().map(|(_, name)| *name))
            .map_err(|e| OpenError::Tokenizer(format!("control tokens: {e}")))?;
        Ok(Self { names, ids: controls.into_iter().map(|(id, _)| id).collect() })
    }

    /// Replaces every control token's name by its code.
    pub(in crate::text) fn encode(&self, source: &str) -> String {
        let mut out = String::with_capacity(source.len());
        for segment in self.split_names(source) {
            match segment {
                Segment::Text(text) => out.push_str(&replace_mark_characters(text)),
                Segment::Control(id) => out.push_str(&code(id)),
            }
        }
        out
    }

    /// Cuts text at the names of control tokens.
    pub(in crate::text) fn split_names<'t>(&self, text: &'t str) -> Vec<Segment<'t>> {
        let mut segments = Vec::new();
        let mut at = 0;
        for found in self.names.find_iter(text) {
            push_text(&mut segments, &text[at..found.start()]);
            segments.push(Segment::Control(self.ids[found.pattern().as_usize()]));
            at = found.end();
        }
        push_text(&mut segments, &text[at..]);
        segments
    }

    /// Cuts rendered text at the codes.
    pub(in crate::text) fn split<'t>(&self, rendered: &'t str) -> Vec<Segment<'t>> {
        let mut segments = Vec::new();
        let mut rest = rendered;
        while let Some(open) = rest.find(OPEN) {
            push_text(&mut segments, &rest[..open]);
            let after = &rest[open + OPEN.len_utf8()..];
            let code = after.find(CLOSE).map(|close| (&after[..close], &after[close + CLOSE.len_utf8()..]));
            match code
                .and_then(|(id, tail)| Some((id.parse().ok().filter(|id| self.ids.contains(id))?, tail)))
            {
                Some((id, tail)) => {
                    segments.push(Segment::Control(id));
                    rest = tail;
                }
                // A template that takes text apart may leave half a code behind: it means nothing.
                None => rest = after,
            }
        }
        push_text(&mut segments, rest);
        segments
    }

    /// The first control token that stands in `rendered` by name instead of by code.
    pub(in crate::text) fn find_uncoded<'t>(&self, rendered: &'t str) -> Option<&'t str> {
        self.names.find(rendered).map(|found| &rendered[found.range()])
    }
}

/// What a control token is in a template's source and output.
pub(in crate::text) fn code(id: u32) -> String {
    format!("{OPEN}{id}{CLOSE}")
}

fn push_text<'t>(segments: &mut Vec<Segment<'t>>, text: &'t str) {
    if !text.is_empty() {
        segments.push(Segment::Text(text));
    }
}

/// Text without the two characters that codes are made of; they are replaced by U+FFFD.
pub(in crate::text) fn replace_mark_characters(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains([OPEN, CLOSE]) {
        return text.replace([OPEN, CLOSE], "\u{FFFD}").into();
    }
    text.into()
}
