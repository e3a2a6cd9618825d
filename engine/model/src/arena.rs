//! All KV memory of a process: one contiguous mapping, divided into pages that are borrowed one by one.
//!
//! Each page has a reader/writer count of its own, so the scheduler computes on some pages while transfer
//! threads send or receive others. Borrowing never waits: who should hold a page is decided by the page
//! pool, and a refused borrow means that somebody broke its rules.
#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::MmapRaw;

#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    #[error("{pages} pages of {page_bytes} bytes exceed the address space")]
    TooLarge { pages: usize, page_bytes: usize },
    #[error("cannot map {bytes} bytes for KV pages: {source}")]
    Map { bytes: usize, source: std::io::Error },
}

const WRITER: u32 = u32::MAX;

/// Pages of equal size, zeroed at first.
#[derive(Debug)]
pub struct PageArena {
    memory: MmapRaw,
    page_bytes: usize,
    /// Holders of each page: a number of readers, or `WRITER`.
    holders: Box<[AtomicU32]>,
}

impl PageArena {
    /// Physical memory is taken page by page as it is first written.
    pub fn new(pages: usize, page_bytes: usize) -> Result<Arc<Self>, ArenaError> {
        let bytes = pages
            .checked_mul(page_bytes)
            .filter(|bytes| *bytes > 0 && isize::try_from(*bytes).is_ok())
            .ok_or(ArenaError::TooLarge { pages, page_bytes })?;
        let memory = memmap2::MmapMut::map_anon(bytes).map_err(|source| ArenaError::Map { bytes, source })?;
        // Attention streams through pages; fewer TLB misses on the way. A kernel without huge pages refuses, which
        // is only slower.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let holders = (0..pages).map(|_| AtomicU32::new(0)).collect();
        Ok(Arc::new(Self { memory: memory.into(), page_bytes, holders }))
    }

    pub fn pages(&self) -> usize {
        self.holders.len()
    }

    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Borrows a page for reading; `None` while it is being written or if there is no such page.
    pub fn read(self: &Arc<Self>, page: u32) -> Option<PageRead> {
        let holders = self.holders.get(page as usize)?;
        holders
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |n| (n < WRITER - 1).then_some(n + 1))
            .ok()?;
        Some(PageRead { arena: Arc::clone(self), page })
    }

    /// Borrows a page for writing; `None` while anybody else holds it or if there is no such page.
    pub fn write(self: &Arc<Self>, page: u32) -> Option<PageWrite> {
        let holders = self.holders.get(page as usize)?;
        holders.compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(PageWrite { arena: Arc::clone(self), page })
    }

    /// True while somebody borrows the page.
    pub fn is_held(&self, page: u32) -> bool {
        self.holders.get(page as usize).is_some_and(|holders| holders.load(Ordering::Acquire) != 0)
    }

    fn pointer(&self, page: u32) -> *mut u8 {
        debug_assert!((page as usize) < self.pages());
        // SAFETY: `page` is below `pages()`, so the offset stays inside the mapping.
        unsafe { self.memory.as_mut_ptr().add(page as usize * self.page_bytes) }
    }
}

/// Shared access to one page.
#[derive(Debug)]
pub struct PageRead {
    arena: Arc<PageArena>,
    page: u32,
}

impl Deref for PageRead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: while a PageRead exists its count keeps writers out, and the page lies in the mapping,
        // which the Arc keeps alive.
        unsafe { std::slice::from_raw_parts(self.arena.pointer(self.page), self.arena.page_bytes) }
    }
}

impl Drop for PageRead {
    fn drop(&mut self) {
        self.arena.holders[self.page as usize].fetch_sub(1, Ordering::Release);
    }
}

/// Exclusive access to one page.
#[derive(Debug)]
pub struct PageWrite {
    arena: Arc<PageArena>,
    page: u32,
}

impl Deref for PageWrite {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: a PageWrite is the page's only holder.
        unsafe { std::slice::from_raw_parts(self.arena.pointer(self.page), self.arena.page_bytes) }
    }
}

impl DerefMut for PageWrite {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: a PageWrite is the page's only holder, and `&mut self` makes this its only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.arena.pointer(self.page), self.arena.page_bytes) }
    }
}

impl Drop for PageWrite {
    fn drop(&mut self) {
        self.arena.holders[self.page as usize].store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_writer_or_many_readers() -> Result<(), ArenaError> {
        let arena = PageArena::new(2, 16)?;
        let mut writer = arena.write(0).expect("free");
        writer[15] = 7;
        assert!(arena.read(0).is_none() && arena.write(0).is_none());
        assert!(arena.read(1).is_some(), "another page is independent");
        drop(writer);
        let (one, two) = (arena.read(0).expect("free"), arena.read(0).expect("shared"));
        assert_eq!((one[15], two[15]), (7, 7));
        assert!(arena.write(0).is_none() && arena.is_held(0));
        drop((one, two));
        assert!(arena.write(0).is_some() && !arena.is_held(1));
        Ok(())
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        assert!(matches!(PageArena::new(usize::MAX, 2), Err(ArenaError::TooLarge { .. })));
        assert!(matches!(PageArena::new(0, 2), Err(ArenaError::TooLarge { .. })));
    }
}
