//! One step's rows and the pages they use, checked before anything is computed.

use std::sync::Arc;

use crate::{BackendError, KvGeometry, LogitRows, PageArena, PageRead, PageWrite, SequenceRows};

/// A token of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) token: u32,
    pub(crate) position: usize,
    /// Index of the sequence in the batch.
    pub(crate) sequence: usize,
    pub(crate) wants_logits: bool,
}

/// The pages of one sequence, in order of position: those before the step's tokens are read, the others
/// written.
#[derive(Debug)]
pub(crate) struct Pages {
    read: Vec<PageRead>,
    write: Vec<PageWrite>,
}

impl Pages {
    pub(crate) fn get(&self, page: usize) -> &[u8] {
        match self.read.get(page) {
            Some(held) => held,
            None => &self.write[page - self.read.len()],
        }
    }

    /// A page that holds tokens of the step.
    pub(crate) fn get_mut(&mut self, page: usize) -> &mut [u8] {
        &mut self.write[page - self.read.len()]
    }
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) rows: Vec<Row>,
    /// By sequence.
    pub(crate) pages: Vec<Pages>,
}

impl Step {
    pub(crate) fn new(
        batch: &[SequenceRows<'_>],
        vocabulary: usize,
        geometry: &KvGeometry,
        arena: &Arc<PageArena>,
    ) -> Result<Self, BackendError> {
        let mut rows = Vec::with_capacity(batch.iter().map(|s| s.tokens.len()).sum());
        for (index, sequence) in batch.iter().enumerate() {
            check(index, sequence, vocabulary, geometry)?;
            push_rows(index, sequence, &mut rows);
        }
        let pages = batch.iter().map(|s| borrow(s, geometry, arena)).collect::<Result<_, _>>()?;
        Ok(Self { rows, pages })
    }
}

fn check(
    index: usize,
    sequence: &SequenceRows<'_>,
    vocabulary: usize,
    geometry: &KvGeometry,
) -> Result<(), BackendError> {
    let (tokens, start) = (sequence.tokens.len(), sequence.start);
    if tokens == 0 {
        return Err(BackendError::Empty { sequence: index });
    }
    if let Some(token) = sequence.tokens.iter().find(|t| **t as usize >= vocabulary) {
        return Err(BackendError::Token { token: *token, vocabulary });
    }
    let needed = geometry.pages_for(start.saturating_add(tokens));
    if sequence.pages.len() < needed {
        return Err(BackendError::Pages { tokens, start, needed, given: sequence.pages.len() });
    }
    Ok(())
}

fn push_rows(index: usize, sequence: &SequenceRows<'_>, rows: &mut Vec<Row>) {
    let last = sequence.tokens.len() - 1;
    rows.extend(sequence.tokens.iter().enumerate().map(|(i, token)| Row {
        token: *token,
        position: sequence.start + i,
        sequence: index,
        wants_logits: i == last && sequence.logits == LogitRows::Last,
    }));
}

fn borrow(
    sequence: &SequenceRows<'_>,
    geometry: &KvGeometry,
    arena: &Arc<PageArena>,
) -> Result<Pages, BackendError> {
    let first_written = sequence.start / geometry.page_tokens;
    let needed = geometry.pages_for(sequence.start + sequence.tokens.len());
    let (read, write) = sequence.pages[..needed].split_at(first_written);
    let busy = |page: &u32| BackendError::PageBusy { page: *page };
    Ok(Pages {
        read: read.iter().map(|p| arena.read(*p).ok_or_else(|| busy(p))).collect::<Result<_, _>>()?,
        write: write.iter().map(|p| arena.write(*p).ok_or_else(|| busy(p))).collect::<Result<_, _>>()?,
    })
}
