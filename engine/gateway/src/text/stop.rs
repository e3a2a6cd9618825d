//! Stop strings, found in a stream of text pieces.
//!
//! An automaton over all stop strings runs along the text; its depth is the length of the longest tail that
//! may still become a stop, and exactly that tail is held back. Where pieces end makes no difference. The
//! stop that ends first wins; of those that end together, the one that starts first.

use std::sync::Arc;

use super::error::TextError;
use super::limits::TextLimits;

/// A set of stop strings, compiled; shared by the choices of a request.
#[derive(Debug, Clone)]
pub struct StopStrings {
    strings: Arc<[String]>,
    states: Arc<[State]>,
}

#[derive(Debug, Default)]
struct State {
    /// Sorted by byte.
    next: Vec<(u8, u32)>,
    /// The state of the longest proper tail that is also a prefix of some stop.
    fallback: u32,
    depth: u32,
    /// The longest stop that ends here.
    stop: Option<u32>,
}

impl StopStrings {
    /// Refuses empty, too long and too many strings, naming `stop`.
    pub fn new(strings: &[String], limits: &TextLimits) -> Result<Self, TextError> {
        if strings.len() > limits.stop_strings {
            let message =
                format!("{} stop strings; at most {} are allowed", strings.len(), limits.stop_strings);
            return Err(TextError::invalid("stop", message));
        }
        if let Some(bad) = strings.iter().find(|s| s.is_empty() || s.len() > limits.stop_bytes) {
            let message =
                format!("a stop string has {} bytes; 1 to {} are allowed", bad.len(), limits.stop_bytes);
            return Err(TextError::invalid("stop", message));
        }
        Ok(Self { strings: strings.into(), states: compile(strings).into() })
    }

    pub fn is_empty(&self) -> bool {
        self.strings.is_empty()
    }

    /// A fresh search for one stream.
    pub fn search(&self) -> StopSearch {
        StopSearch { stops: self.clone(), state: 0, held: String::new() }
    }

    fn step(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            let node = &self.states[state as usize];
            if let Ok(at) = node.next.binary_search_by_key(&byte, |&(b, _)| b) {
                return node.next[at].1;
            }
            if state == 0 {
                return 0;
            }
            state = node.fallback;
        }
    }
}

/// The state of one stream.
#[derive(Debug, Clone)]
pub struct StopSearch {
    stops: StopStrings,
    state: u32,
    /// The tail of the text that may become a stop; its length is the state's depth.
    held: String,
}

impl StopSearch {
    /// Appends the text that is certain to stay to `out`. On a stop, returns it: the stop itself and all
    /// that follows is dropped, and the stream must end.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<&str> {
        if self.stops.is_empty() {
            out.push_str(text);
            return None;
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            self.state = self.stops.step(self.state, byte);
            if let Some(stop) = self.stops.states[self.state as usize].stop {
                let stop = &self.stops.strings[stop as usize];
                out.push_str(&self.held[..before + at + 1 - stop.len()]);
                self.held.clear();
                self.state = 0;
                return Some(stop);
            }
        }
        let certain = self.held.len() - self.stops.states[self.state as usize].depth as usize;
        out.push_str(&self.held[..certain]);
        self.held.drain(..certain);
        None
    }

    /// The end of the stream without a stop: what was held back is text.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
        self.state = 0;
    }
}

fn compile(strings: &[String]) -> Vec<State> {
    let mut states = vec![State::default()];
    for (index, string) in strings.iter().enumerate() {
        let mut at = 0usize;
        for &byte in string.as_bytes() {
            at = match states[at].next.binary_search_by_key(&byte, |&(b, _)| b) {
                Ok(found) => states[at].next[found].1 as usize,
                Err(place) => {
                    let new = states.len();
                    let depth = states[at].depth + 1;
                    states[at].next.insert(place, (byte, new as u32));
                    states.push(State { depth, ..State::default() });
                    new
                }
            };
        }
        states[at].stop.get_or_insert(index as u32);
    }
    link_fallbacks(&mut states);
    states
}

/// Breadth first, so that a fallback's own fallback and stop are known before they are needed.
fn link_fallbacks(states: &mut [State]) {
    let mut queue: std::collections::VecDeque<u32> = states[0].next.iter().map(|&(_, s)| s).collect();
    while let Some(state) = queue.pop_front() {
        for (byte, child) in states[state as usize].next.clone() {
            queue.push_back(child);
            let mut tail = states[state as usize].fallback;
            let target = loop {
                let node = &states[tail as usize];
                match node.next.binary_search_by_key(&byte, |&(b, _)| b) {
                    Ok(found) => break node.next[found].1,
                    Err(_) if tail == 0 => break 0,
                    Err(_) => tail = node.fallback,
                }
            };
            states[child as usize].fallback = target;
            let inherited = states[target as usize].stop;
            let own = &mut states[child as usize].stop;
            *own = own.or(inherited);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(strings: &[&str]) -> StopStrings {
        let strings: Vec<String> = strings.iter().map(|s| (*s).to_owned()).collect();
        StopStrings::new(&strings, &TextLimits::default()).unwrap()
    }

    /// What comes out after each piece, and which stop was found.
    fn stream(stops: &StopStrings, pieces: &[&str]) -> (Vec<String>, Option<String>) {
        let mut search = stops.search();
        let mut outs = Vec::new();
        for piece in pieces {
            let mut out = String::new();
            let found = search.push(piece, &mut out).map(str::to_owned);
            outs.push(out);
            if found.is_some() {
                return (outs, found);
            }
        }
        let mut out = String::new();
        search.finish(&mut out);
        outs.push(out);
        (outs, None)
    }

    #[test]
    fn only_text_that_may_become_a_stop_waits() {
        let (outs, found) = stream(&stops(&["###"]), &["a#", "b##", "c", "##", "#d"]);
        assert_eq!(outs, ["a", "#b", "##c", "", ""]);
        assert_eq!(found.as_deref(), Some("###"));
    }

    #[test]
    fn text_held_at_the_end_is_text() {
        assert_eq!(stream(&stops(&["END"]), &["the EN"]), (vec!["the ".to_owned(), "EN".to_owned()], None));
    }

    #[test]
    fn the_stop_that_ends_first_wins_and_the_longer_of_two_that_end_together() {
        let (outs, found) = stream(&stops(&["c", "abcd", "bc"]), &["xab", "cd"]);
        assert_eq!((outs.concat().as_str(), found.as_deref()), ("xa", Some("bc")));
    }

    #[test]
    fn a_stop_inside_the_beginning_of_a_longer_one_is_found() {
        let (outs, found) = stream(&stops(&["abcabd", "ca"]), &["ab", "cab"]);
        assert_eq!((outs.concat().as_str(), found.as_deref()), ("ab", Some("ca")));
    }

    #[test]
    fn empty_long_and_many_stop_strings_are_refused_by_name() {
        let refused = |strings: Vec<String>| StopStrings::new(&strings, &TextLimits::default()).unwrap_err();
        for error in
            [refused(vec![String::new()]), refused(vec!["x".repeat(5000)]), refused(vec!["x".into(); 99])]
        {
            assert_eq!(error.param.as_deref(), Some("stop"), "{error}");
        }
    }

    /// Searches the whole text in the obvious way.
    fn whole(strings: &[String], text: &str) -> (String, Option<String>) {
        for end in 1..=text.len() {
            let ending = strings.iter().filter(|s| text.as_bytes()[..end].ends_with(s.as_bytes()));
            if let Some(stop) = ending.max_by_key(|s| s.len()) {
                return (text[..end - stop.len()].to_owned(), Some(stop.clone()));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn any_cut_of_the_text_gives_what_searching_it_whole_gives(
            strings in prop::collection::vec("[abé]{1,5}", 1..5),
            pieces in prop::collection::vec("[abéc]{0,4}", 0..12),
        ) {
            let stops = StopStrings::new(&strings, &TextLimits::default()).unwrap();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (outs, found) = stream(&stops, &pieces);
            prop_assert_eq!((outs.concat(), found), whole(&strings, &pieces.concat()));
        }
    }
}
