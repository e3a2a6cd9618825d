//! The pool and the prefix cache together: allocation that evicts, and sharing by content.

use std::sync::Arc;

use shoal_model::PageArena;
use shoal_wire::PageKey;

use super::{PagePool, PrefixCache};

#[derive(Debug)]
pub struct Pages {
    pub pool: PagePool,
    pub cache: PrefixCache,
}

impl Pages {
    pub fn new(arena: Arc<PageArena>) -> Self {
        Self { pool: PagePool::new(arena), cache: PrefixCache::default() }
    }

    /// `count` pages with one user each, evicting from the prefix cache; all of them or none.
    pub fn allocate(&mut self, count: usize) -> Option<Vec<u32>> {
        if count > self.pool.free() {
            self.pool.reclaim();
        }
        if count > self.pool.free() + self.pool.idle() {
            return None;
        }
        let mut pages = Vec::with_capacity(count);
        while pages.len() < count {
            match self.pool.allocate() {
                Some(page) => pages.push(page),
                // An evicted page may still be borrowed by a sender, so this can take several rounds.
                None if self.cache.evict(&mut self.pool) => {}
                None => {
                    self.release(&pages);
                    return None;
                }
            }
        }
        Some(pages)
    }

    pub fn release(&mut self, pages: &[u32]) {
        for page in pages {
            self.pool.release(*page);
        }
    }

    /// Caches `pages`, full and in order, under their chain of keys. Pages already cached are left alone.
    pub fn store(&mut self, keys: &[PageKey], pages: &[u32], from: usize) {
        let stored = self.store_from(keys, pages, from);
        // A sequence can share a key with a page of another one; that page may have been evicted since.
        if !stored && from > 0 {
            self.store_from(keys, pages, 0);
        }
    }

    fn store_from(&mut self, keys: &[PageKey], pages: &[u32], from: usize) -> bool {
        keys.iter().zip(pages).enumerate().skip(from).all(|(index, (key, page))| {
            let parent = index.checked_sub(1).map(|before| keys[before]);
            self.cache.insert(*key, parent, *page, &mut self.pool)
        })
    }

    /// Recounts everything; `uses` are the pages that sequences use, once per use.
    pub fn check(&self, uses: impl Iterator<Item = u32>) -> Result<(), String> {
        let mut users = vec![0; self.pool.total()];
        for page in uses {
            users[page as usize] += 1;
        }
        let mut cached = vec![false; self.pool.total()];
        self.cache.check(&mut cached)?;
        self.pool.check(&users, &cached)
    }
}
