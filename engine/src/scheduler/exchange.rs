//! Pages between the memory that the backend computes in and the arena, through which they travel.

use std::ops::Range;
use std::time::{Duration, Instant};

use shoal_model::BackendError;

use super::Scheduler;
use crate::request::{SequenceId, Slot};

/// No page has this generation.
pub(super) const NOT_PUBLISHED: u32 = 0;

/// A transfer thread may hold a page for the moment in which it learns that the page is not its own any
/// more. That takes microseconds; after this long the holder is stuck.
const PAGE_BUSY_PATIENCE: Duration = Duration::from_millis(50);

/// Runs again while a page is held by somebody else, and returns the page if it stays so.
pub(super) fn patiently(
    mut run: impl FnMut() -> Result<(), BackendError>,
) -> Result<Option<u32>, BackendError> {
    let started = Instant::now();
    loop {
        match run() {
            Ok(()) => return Ok(None),
            Err(BackendError::PageBusy { page }) if started.elapsed() > PAGE_BUSY_PATIENCE => {
                return Ok(Some(page));
            }
            Err(BackendError::PageBusy { .. }) => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
}

impl Scheduler {
    /// Brings the final pages of a prompt into the arena, each once: a page that is sent to one peer may be
    /// wanted by the next one too, and then somebody may be reading it.
    pub(super) fn publish_pages(&mut self, id: SequenceId) -> Result<(), BackendError> {
        let Some(sequence) = self.sequences.get(&id) else { return Ok(()) };
        let whole = sequence.computed == sequence.tokens.len();
        let last = sequence.tokens.len().div_ceil(self.page_tokens);
        let end = if whole { last } else { sequence.computed / self.page_tokens };
        let Self { backend, pages, published, .. } = self;
        let slots = sequence.pages[..end].iter().map(|page| pages.pool.slot(*page));
        let fresh: Vec<Slot> =
            slots.filter(|slot| published[slot.page as usize] != slot.generation).collect();
        let numbers: Vec<u32> = fresh.iter().map(|slot| slot.page).collect();
        if let Some(page) = patiently(|| backend.publish(&numbers))? {
            self.end_users_of(page);
            return Ok(());
        }
        for slot in fresh {
            published[slot.page as usize] = slot.generation;
        }
        Ok(())
    }

    /// Takes over what a peer wrote into these pages of a sequence. False if somebody still held one, whose
    /// users were then ended.
    pub(super) fn adopt(&mut self, id: SequenceId, range: Range<usize>) -> Result<bool, BackendError> {
        let Self { backend, sequences, .. } = self;
        let pages = sequences.get(&id).and_then(|sequence| sequence.pages.get(range)).unwrap_or_default();
        let busy = patiently(|| backend.adopt(pages))?;
        if let Some(page) = busy {
            self.end_users_of(page);
        }
        Ok(busy.is_none())
    }
}
