//! Full pages by content, so that a prompt's known prefix is not computed again.
//!
//! Entries form trees by their parent keys. Only leaves are evicted, the least recently used first, so an
//! entry's parent is always present. A page that a sequence uses is never evicted, and nothing here copies:
//! sequences share the page itself, which is full and so never written again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use shoal_wire::PageKey;
use shoal_wire::limits::MAX_KEYS_PER_EVENT;

use super::PagePool;

/// A change of the cache's content, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvEvent {
    Stored(Arc<[PageKey]>),
    Removed(Arc<[PageKey]>),
}

#[derive(Debug)]
struct Entry {
    page: u32,
    parent: Option<PageKey>,
    children: u32,
    used: u64,
}

#[derive(Debug, Default)]
pub struct PrefixCache {
    entries: HashMap<PageKey, Entry>,
    /// Entries without children, by last use.
    leaves: BTreeSet<(u64, PageKey)>,
    clock: u64,
    changes: Vec<(bool, PageKey)>,
}

impl PrefixCache {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn keys(&self) -> Vec<PageKey> {
        self.entries.keys().copied().collect()
    }

    /// Pages of the longest cached prefix of `keys`; the caller becomes a user of each.
    pub fn take_prefix(&mut self, keys: &[PageKey], pool: &mut PagePool) -> Vec<u32> {
        let pages: Vec<u32> =
            keys.iter().map_while(|key| self.entries.get(key).map(|entry| entry.page)).collect();
        for page in &pages {
            pool.retain(*page);
        }
        self.touch(&keys[..pages.len()]);
        pages
    }

    /// Adds a full page that a sequence uses. False if its parent is absent; a key that is present stays
    /// with the page it has.
    pub fn insert(&mut self, key: PageKey, parent: Option<PageKey>, page: u32, pool: &mut PagePool) -> bool {
        if self.entries.contains_key(&key) {
            return true;
        }
        if let Some(parent) = parent {
            let Some(entry) = self.entries.get_mut(&parent) else { return false };
            if entry.children == 0 {
                self.leaves.remove(&(entry.used, parent));
            }
            entry.children += 1;
        }
        pool.hold(page);
        self.clock += 1;
        self.leaves.insert((self.clock, key));
        self.entries.insert(key, Entry { page, parent, children: 0, used: self.clock });
        self.changes.push((true, key));
        true
    }

    /// Marks a chain as used now, its end first: of two leaves of one chain the later page goes first.
    pub fn touch(&mut self, keys: &[PageKey]) {
        for key in keys.iter().rev() {
            if let Some(entry) = self.entries.get_mut(key) {
                self.clock += 1;
                if entry.children == 0 {
                    self.leaves.remove(&(entry.used, *key));
                    self.leaves.insert((self.clock, *key));
                }
                entry.used = self.clock;
            }
        }
    }

    /// Gives the least recently used leaf that no sequence uses back to the pool.
    pub fn evict(&mut self, pool: &mut PagePool) -> bool {
        let idle = |(_, key): &&(u64, PageKey)| {
            self.entries.get(key).is_some_and(|entry| pool.users(entry.page) == 0)
        };
        let Some((used, key)) = self.leaves.iter().find(idle).copied() else { return false };
        self.leaves.remove(&(used, key));
        if let Some(entry) = self.entries.remove(&key) {
            self.orphan(entry.parent);
            pool.unhold(entry.page);
            self.changes.push((false, key));
        }
        true
    }

    /// A child of `parent` went away.
    fn orphan(&mut self, parent: Option<PageKey>) {
        if let Some(key) = parent
            && let Some(entry) = self.entries.get_mut(&key)
        {
            entry.children -= 1;
            if entry.children == 0 {
                self.leaves.insert((entry.used, key));
            }
        }
    }

    /// What changed since the last call, as few events as the order allows.
    pub fn take_changes(&mut self) -> Vec<KvEvent> {
        let changes = std::mem::take(&mut self.changes);
        changes
            .chunk_by(|a, b| a.0 == b.0)
            .flat_map(|run| run.chunks(MAX_KEYS_PER_EVENT))
            .map(|run| {
                let keys = run.iter().map(|(_, key)| *key).collect();
                if run[0].0 { KvEvent::Stored(keys) } else { KvEvent::Removed(keys) }
            })
            .collect()
    }

    /// Marks the cached pages in `cached`, and checks that the trees are whole.
    pub(super) fn check(&self, cached: &mut [bool]) -> Result<(), String> {
        let mut children: HashMap<PageKey, u32> = HashMap::new();
        for (key, entry) in &self.entries {
            if std::mem::replace(&mut cached[entry.page as usize], true) {
                return Err(format!("page {} is cached under two keys, one is {key:?}", entry.page));
            }
            if let Some(parent) = entry.parent {
                *children.entry(parent).or_default() += 1;
            }
        }
        for (key, entry) in &self.entries {
            let counted = children.remove(key).unwrap_or(0);
            if counted != entry.children || (counted == 0) != self.leaves.contains(&(entry.used, *key)) {
                return Err(format!("{key:?} has {counted} children, {} were kept", entry.children));
            }
        }
        match children.keys().next() {
            Some(orphan) => Err(format!("{orphan:?} was evicted before its children")),
            None => Ok(()),
        }
    }
}
