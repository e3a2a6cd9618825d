//! Pool and cache against a model that recounts everything: no leak, no double use, and never a page read
//! under a key or generation that is not its own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use shoal_model::{PageArena, PageRead};
use shoal_wire::rpc::Fingerprint;
use shoal_wire::{FleetSecret, PageKey, PageKeyer};

use super::{KvEvent, Pages};
use crate::request::Slot;

const PAGES: usize = 12;

/// What a page holds: the labels of the pages from the root to it.
type Path = Vec<u8>;

#[derive(Debug, Clone)]
enum Act {
    /// A sequence of this content starts: cached prefix, then new pages.
    Open(Path),
    /// It computed all its pages and offers them to the cache.
    Store(usize),
    Close(usize),
    /// A transfer thread borrows a page of a sequence, and lets go.
    Borrow(usize, usize),
    Return(usize),
}

/// Pages by number; which number is free to the implementation, so the model numbers anew.
#[derive(Debug, Clone, Default)]
struct Model {
    next_page: usize,
    open: Vec<(Path, Vec<usize>)>,
    cached: BTreeMap<Path, usize>,
    /// Cached paths, the least recently used first.
    recency: Vec<Path>,
    borrowed: Vec<usize>,
    /// Cached pages that the last `Open` found, if it got its pages.
    hits: Option<usize>,
}

impl Model {
    fn users(&self, page: usize) -> usize {
        self.open.iter().flat_map(|(_, pages)| pages).filter(|used| **used == page).count()
    }

    fn in_use(&self) -> BTreeSet<usize> {
        let open = self.open.iter().flat_map(|(_, pages)| pages.iter().copied());
        open.chain(self.cached.values().copied()).collect()
    }

    fn idle(&self) -> usize {
        self.cached.values().filter(|page| self.users(**page) == 0).count()
    }

    /// Pages that are neither used nor cached, but borrowed.
    fn aside(&self) -> usize {
        let borrowed: BTreeSet<usize> = self.borrowed.iter().copied().collect();
        borrowed.difference(&self.in_use()).count()
    }

    fn free(&self) -> usize {
        PAGES - self.in_use().len() - self.aside()
    }

    fn touch(&mut self, path: &Path) {
        for length in (1..=path.len()).rev() {
            let prefix = &path[..length];
            if self.cached.contains_key(prefix) {
                self.recency.retain(|known| known != prefix);
                self.recency.push(prefix.to_vec());
            }
        }
    }

    fn evict(&mut self) -> bool {
        let leaf = |path: &&Path| {
            let is_parent = |other: &Path| other.len() > path.len() && other.starts_with(path);
            !self.cached.keys().any(is_parent) && self.users(self.cached[*path]) == 0
        };
        let Some(path) = self.recency.iter().find(leaf).cloned() else { return false };
        self.cached.remove(&path);
        self.recency.retain(|known| *known != path);
        true
    }

    fn open(&mut self, path: &Path) {
        let hits = (1..path.len()).take_while(|length| self.cached.contains_key(&path[..*length])).count();
        let mut pages: Vec<usize> = (1..=hits).map(|length| self.cached[&path[..length]]).collect();
        self.touch(&path[..hits].to_vec());
        // Its hits are in use while it looks for the rest.
        self.open.push((path.clone(), pages.clone()));
        let needed = path.len() - hits;
        let possible = needed <= self.free() + self.idle();
        while possible && self.free() < needed && self.evict() {}
        let got = self.free() >= needed;
        self.open.pop();
        self.hits = got.then_some(hits);
        if got {
            pages.extend(self.next_page..self.next_page + needed);
            self.next_page += needed;
            self.open.push((path.clone(), pages));
        }
    }

    fn store(&mut self, index: usize) {
        let Some((path, pages)) = self.open.get(index).cloned() else { return };
        for (length, page) in (1..=path.len()).zip(pages) {
            let prefix = path[..length].to_vec();
            if !self.cached.contains_key(&prefix) {
                self.cached.insert(prefix.clone(), page);
                self.recency.push(prefix);
            }
        }
    }

    fn borrow(&mut self, index: usize, page: usize) {
        if let Some((_, pages)) = self.open.get(index) {
            self.borrowed.push(pages[page % pages.len()]);
        }
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Act;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Act> {
        prop_oneof![
            4 => proptest::collection::vec(0..2_u8, 1..6).prop_map(Act::Open),
            3 => (0..4_usize).prop_map(Act::Store),
            3 => (0..4_usize).prop_map(Act::Close),
            1 => (0..4_usize, 0..5_usize).prop_map(|(sequence, page)| Act::Borrow(sequence, page)),
            1 => (0..3_usize).prop_map(Act::Return),
        ]
        .boxed()
    }

    fn apply(mut model: Self, act: &Act) -> Self {
        match act {
            Act::Open(path) => model.open(path),
            Act::Store(index) => model.store(*index),
            Act::Close(index) if *index < model.open.len() => {
                let (path, _) = model.open.remove(*index);
                model.touch(&path);
            }
            Act::Borrow(index, page) => model.borrow(*index, *page),
            Act::Return(index) if *index < model.borrowed.len() => {
                model.borrowed.remove(*index);
            }
            Act::Close(_) | Act::Return(_) => {}
        }
        model
    }
}

struct Opened {
    path: Path,
    pages: Vec<u32>,
    slots: Vec<Slot>,
}

struct Real {
    arena: Arc<PageArena>,
    keyer: PageKeyer,
    pages: Pages,
    open: Vec<Opened>,
    borrows: Vec<PageRead>,
    /// Slots of closed sequences, and what their pages held.
    ghosts: Vec<(Slot, Path)>,
    announced: HashSet<PageKey>,
}

impl Real {
    fn keys(&self, path: &[u8]) -> Vec<PageKey> {
        self.keyer.chain(&path.iter().map(|label| u32::from(*label)).collect::<Vec<_>>())
    }

    fn open(&mut self, path: &Path) -> Option<usize> {
        let keys = self.keys(path);
        let mut pages = self.pages.cache.take_prefix(&keys[..keys.len() - 1], &mut self.pages.pool);
        let hits = pages.len();
        for (index, page) in pages.iter().enumerate() {
            let content = self.arena.read(*page).expect("nobody writes a cached page");
            assert_eq!(content[..=index], path[..=index], "page {page} holds something else");
        }
        let Some(fresh) = self.pages.allocate(path.len() - hits) else {
            self.pages.release(&pages);
            return None;
        };
        pages.extend(fresh);
        for length in hits + 1..=path.len() {
            let mut page = self.arena.write(pages[length - 1]).expect("a new page is nobody else's");
            page[..length].copy_from_slice(&path[..length]);
        }
        let slots = pages.iter().map(|page| self.pages.pool.slot(*page)).collect();
        self.open.push(Opened { path: path.clone(), pages, slots });
        Some(hits)
    }

    fn close(&mut self, index: usize) {
        let Opened { path, pages, slots } = self.open.remove(index);
        self.pages.cache.touch(&self.keys(&path));
        self.pages.release(&pages);
        self.ghosts.extend(slots.into_iter().zip(1..).map(|(slot, length)| (slot, path[..length].to_vec())));
    }

    fn note_changes(&mut self) {
        for event in self.pages.cache.take_changes() {
            match event {
                KvEvent::Stored(keys) => keys.iter().for_each(|key| assert!(self.announced.insert(*key))),
                KvEvent::Removed(keys) => keys.iter().for_each(|key| assert!(self.announced.remove(key))),
            }
        }
    }
}

struct PagesFollowTheModel;

impl StateMachineTest for PagesFollowTheModel {
    type SystemUnderTest = Real;
    type Reference = Model;

    fn init_test(_: &Model) -> Real {
        let arena = PageArena::new(PAGES, 64).expect("small");
        let fingerprint = Fingerprint { page_tokens: 1, ..Default::default() };
        Real {
            keyer: PageKeyer::new(&FleetSecret::from_bytes([1; 32]), &fingerprint, b""),
            pages: Pages::new(Arc::clone(&arena)),
            arena,
            open: Vec::new(),
            borrows: Vec::new(),
            ghosts: Vec::new(),
            announced: HashSet::new(),
        }
    }

    fn apply(mut real: Real, model: &Model, act: Act) -> Real {
        match act {
            Act::Open(path) => assert_eq!(real.open(&path), model.hits),
            Act::Store(index) if index < real.open.len() => {
                let Opened { path, pages, .. } = &real.open[index];
                let keys = real.keys(path);
                real.pages.store(&keys, pages, path.len() / 2);
            }
            Act::Close(index) if index < real.open.len() => real.close(index),
            Act::Borrow(index, page) if index < real.open.len() => {
                let pages = &real.open[index].pages;
                let page = pages[page % pages.len()];
                real.borrows.push(real.arena.read(page).expect("nobody writes"));
            }
            Act::Return(index) if index < real.borrows.len() => drop(real.borrows.remove(index)),
            _ => {}
        }
        real.pages.pool.reclaim();
        real.note_changes();
        real
    }

    fn check_invariants(real: &Real, model: &Model) {
        real.pages.check(real.open.iter().flat_map(|opened| opened.pages.iter().copied())).expect("whole");
        let pool = &real.pages.pool;
        assert_eq!(pool.idle(), model.idle(), "idle");
        assert_eq!(pool.borrowed(), model.aside(), "aside");
        assert_eq!(pool.free(), model.free(), "free");
        let cached: HashSet<PageKey> =
            model.cached.keys().map(|path| *real.keys(path).last().expect("not empty")).collect();
        assert_eq!(real.announced, cached, "the events tell the cache's content");
        for slot in real.open.iter().flat_map(|opened| &opened.slots) {
            assert!(pool.generations().is_current(*slot), "{slot:?} is in use");
        }
        for (slot, held) in &real.ghosts {
            if pool.generations().is_current(*slot) {
                let content = real.arena.read(slot.page).expect("nobody writes");
                assert_eq!(&content[..held.len()], held, "{slot:?} is current, yet its page changed");
            }
        }
    }

    fn teardown(mut real: Real, _: Model) {
        while !real.open.is_empty() {
            real.close(0);
        }
        real.borrows.clear();
        while real.pages.cache.evict(&mut real.pages.pool) {}
        real.pages.pool.reclaim();
        assert_eq!(real.pages.pool.free(), PAGES, "every page came back");
        assert!(real.ghosts.iter().all(|(slot, _)| !real.pages.pool.generations().is_current(*slot)));
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn pages_follow_the_model(sequential 1..60 => PagesFollowTheModel);
}

#[test]
fn a_page_given_up_while_borrowed_is_not_handed_out_until_it_is_returned() {
    let arena = PageArena::new(1, 8).expect("small");
    let mut pages = Pages::new(Arc::clone(&arena));
    let page = pages.allocate(1).expect("free")[0];
    let (slot, late) = (pages.pool.slot(page), arena.write(page).expect("free"));
    pages.release(&[page]);
    assert!(!pages.pool.generations().is_current(slot), "the late writer can see that it is late");
    assert!(pages.allocate(1).is_none());
    drop(late);
    let again = pages.allocate(1).expect("returned")[0];
    assert_ne!(pages.pool.slot(again), slot);
}
