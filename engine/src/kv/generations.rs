//! The current generation of every page, readable by transfer threads.
//!
//! A generation changes the moment a page's owner gives it up. Whoever touches a page from another thread
//! first borrows it from the arena and then asks whether the generation is still current. The pool does the
//! two in the other order: it changes the generation, then looks whether the page is borrowed. So either
//! the thread sees the change and lets go, or the pool sees the borrow and keeps the page aside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::request::Slot;

#[derive(Debug, Clone)]
pub struct Generations(Arc<[AtomicU32]>);

impl Generations {
    pub fn new(pages: usize) -> Self {
        Self((0..pages).map(|_| AtomicU32::new(1)).collect())
    }

    pub fn slot(&self, page: u32) -> Slot {
        let generation = self.0.get(page as usize).map_or(0, |value| value.load(Ordering::SeqCst));
        Slot { page, generation }
    }

    /// True while the page belongs to whom `slot` was given. Ask after borrowing the page, not before.
    pub fn is_current(&self, slot: Slot) -> bool {
        fence(Ordering::SeqCst);
        self.0.get(slot.page as usize).is_some_and(|value| value.load(Ordering::SeqCst) == slot.generation)
    }

    /// Ends the right of every earlier slot of this page. 0 is skipped: it is no generation.
    pub(super) fn advance(&self, page: u32) {
        if let Some(value) = self.0.get(page as usize) {
            let next = value.load(Ordering::SeqCst).wrapping_add(1).max(1);
            value.store(next, Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
    }
}
