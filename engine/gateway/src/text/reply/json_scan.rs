//! Reads one call object, `{"name": ..., "arguments": {...}}`, as it arrives.
//!
//! It follows brackets and strings only, so that arguments can be passed on before they are complete. What is
//! inside them is the client's to parse.

use std::ops::Range;

/// Formats differ in the word, and models mix them up.
const ARGUMENTS_KEYS: [&str; 2] = ["arguments", "parameters"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Expect {
    #[default]
    Key,
    Colon,
    Value,
    /// Inside a value of the outermost object, which began here.
    End(usize),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scan {
    More,
    /// The object is complete; it ends before this byte of `raw`.
    Done(usize),
    /// This is not a call.
    Broken,
}

#[derive(Debug, Default)]
pub(super) struct CallScan {
    pub raw: String,
    at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    string_start: usize,
    expect: Expect,
    key: String,
    pub name: Option<String>,
    /// Where the arguments lie in `raw`, as far as they are there.
    pub arguments: Option<Range<usize>>,
    pub arguments_complete: bool,
}

impl CallScan {
    pub(super) fn push(&mut self, text: &str) -> Scan {
        self.raw.push_str(text);
        while self.at < self.raw.len() {
            let byte = self.raw.as_bytes()[self.at];
            self.at += 1;
            let step = if self.in_string { self.string_byte(byte) } else { self.byte(byte) };
            if step != Scan::More {
                return step;
            }
        }
        if let (Some(arguments), false) = (&mut self.arguments, self.arguments_complete) {
            arguments.end = self.raw.len();
        }
        Scan::More
    }

    fn string_byte(&mut self, byte: u8) -> Scan {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_string = false;
                return self.string_closed();
            }
            _ => {}
        }
        Scan::More
    }

    fn string_closed(&mut self) -> Scan {
        if self.depth != 1 {
            return Scan::More;
        }
        match self.expect {
            Expect::Key => {
                let Some(key) = self.text(self.string_start..self.at) else { return Scan::Broken };
                self.key = key;
                self.expect = Expect::Colon;
                Scan::More
            }
            Expect::End(start) => self.value_closed(start..self.at),
            Expect::Colon | Expect::Value => Scan::Broken,
        }
    }

    fn byte(&mut self, byte: u8) -> Scan {
        let start = self.at - 1;
        match (byte, self.depth, self.expect) {
            (b'{', 0, _) => self.depth = 1,
            (b'"', 1, Expect::Key) => self.open_string(start),
            (b':', 1, Expect::Colon) => self.expect = Expect::Value,
            (b',' | b'}', 1, Expect::End(value)) => {
                // The end of a number, true, false or null.
                if self.value_closed(value..start) == Scan::Broken {
                    return Scan::Broken;
                }
                self.expect = Expect::Key;
                return if byte == b'}' { Scan::Done(self.at) } else { Scan::More };
            }
            (b'}', 1, Expect::Key) => return Scan::Done(self.at),
            (b',', 1, Expect::Key) => {}
            (byte, 0 | 1, Expect::Key | Expect::Colon | Expect::Value) if byte.is_ascii_whitespace() => {}
            (byte, 1, Expect::Value) => {
                self.value_opened(start);
                return self.inner(byte, start);
            }
            (byte, depth, Expect::End(_)) if depth >= 1 => return self.inner(byte, start),
            _ => return Scan::Broken,
        }
        Scan::More
    }

    /// A byte inside a value.
    fn inner(&mut self, byte: u8, start: usize) -> Scan {
        match byte {
            b'"' => self.open_string(start),
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth -= 1;
                if let (1, Expect::End(value)) = (self.depth, self.expect) {
                    return self.value_closed(value..self.at);
                }
            }
            _ => {}
        }
        Scan::More
    }

    fn open_string(&mut self, start: usize) {
        self.in_string = true;
        self.string_start = start;
    }

    fn value_opened(&mut self, start: usize) {
        self.expect = Expect::End(start);
        if ARGUMENTS_KEYS.contains(&self.key.as_str()) && self.arguments.is_none() {
            self.arguments = Some(start..start);
        }
    }

    fn value_closed(&mut self, value: Range<usize>) -> Scan {
        self.expect = Expect::Key;
        if self.key == "name" && self.name.is_none() {
            self.name = self.text(value);
            return if self.name.is_some() { Scan::More } else { Scan::Broken };
        }
        if let (Some(arguments), false) = (&mut self.arguments, self.arguments_complete)
            && ARGUMENTS_KEYS.contains(&self.key.as_str())
            && arguments.start == value.start
        {
            *arguments = value;
            self.arguments_complete = true;
        }
        Scan::More
    }

    fn text(&self, string: Range<usize>) -> Option<String> {
        serde_json::from_str(&self.raw[string]).ok()
    }
}
