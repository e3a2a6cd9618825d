//! Pages of the arena, counted by use.
//!
//! A page is in exactly one of four states: free; used by sequences; held by the prefix cache alone (`idle`);
//! or given up while another thread still borrows it. Giving up changes its generation first, so a late
//! write finds that it is no longer meant.

use std::sync::Arc;

use shoal_model::PageArena;

use super::Generations;
use crate::request::Slot;

#[derive(Debug, Clone, Copy, Default)]
struct PageState {
    /// Sequences that use the page.
    users: u32,
    /// The prefix cache holds it.
    cached: bool,
}

#[derive(Debug)]
pub struct PagePool {
    arena: Arc<PageArena>,
    generations: Generations,
    states: Vec<PageState>,
    free: Vec<u32>,
    borrowed: Vec<u32>,
    idle: usize,
    references: u64,
}

impl PagePool {
    pub fn new(arena: Arc<PageArena>) -> Self {
        let pages = arena.pages();
        Self {
            generations: Generations::new(pages),
            states: vec![PageState::default(); pages],
            free: (0..pages as u32).rev().collect(),
            borrowed: Vec::new(),
            idle: 0,
            references: 0,
            arena,
        }
    }

    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    pub fn total(&self) -> usize {
        self.states.len()
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Pages that only the prefix cache holds.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Pages given up and still borrowed by another thread.
    pub fn borrowed(&self) -> usize {
        self.borrowed.len()
    }

    /// Uses by sequences, over all pages.
    pub fn references(&self) -> u64 {
        self.references
    }

    pub fn users(&self, page: u32) -> u32 {
        self.states[page as usize].users
    }

    pub fn slot(&self, page: u32) -> Slot {
        self.generations.slot(page)
    }

    /// A page with one user and a generation that nobody was given before.
    pub fn allocate(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            self.reclaim();
        }
        let page = self.free.pop()?;
        self.states[page as usize].users = 1;
        self.references += 1;
        Some(page)
    }

    /// One more user of a page that has users or is cached.
    pub fn retain(&mut self, page: u32) {
        let state = &mut self.states[page as usize];
        if state.users == 0 {
            debug_assert!(state.cached, "page {page} is free");
            self.idle -= 1;
        }
        state.users += 1;
        self.references += 1;
    }

    /// One user less.
    pub fn release(&mut self, page: u32) {
        let state = &mut self.states[page as usize];
        state.users -= 1;
        self.references -= 1;
        match (state.users, state.cached) {
            (0, true) => self.idle += 1,
            (0, false) => self.give_up(page),
            _ => {}
        }
    }

    /// The prefix cache takes hold of a page that a sequence uses.
    pub(super) fn hold(&mut self, page: u32) {
        let state = &mut self.states[page as usize];
        debug_assert!(state.users > 0 && !state.cached, "page {page} cannot be cached");
        state.cached = true;
    }

    /// The prefix cache lets go.
    pub(super) fn unhold(&mut self, page: u32) {
        let state = &mut self.states[page as usize];
        state.cached = false;
        if state.users == 0 {
            self.idle -= 1;
            self.give_up(page);
        }
    }

    /// Ends the right of everybody who was given this page's slot, except its users.
    pub fn renew(&self, page: u32) {
        self.generations.advance(page);
    }

    /// Takes back pages whose borrower has let go.
    pub fn reclaim(&mut self) {
        let Self { arena, borrowed, free, .. } = self;
        borrowed.retain(|page| {
            let held = arena.is_held(*page);
            if !held {
                free.push(*page);
            }
            held
        });
    }

    fn give_up(&mut self, page: u32) {
        self.generations.advance(page);
        if self.arena.is_held(page) { self.borrowed.push(page) } else { self.free.push(page) }
    }

    /// Compares every count with a recount: `users` are the uses per page that the caller knows of, `cached`
    /// the pages in the prefix cache.
    pub(super) fn check(&self, users: &[u32], cached: &[bool]) -> Result<(), String> {
        let mut listed = vec![0_u32; self.total()];
        for page in self.free.iter().chain(&self.borrowed) {
            listed[*page as usize] += 1;
        }
        for (page, state) in self.states.iter().enumerate() {
            let in_use = state.users > 0 || state.cached;
            if state.users != users[page]
                || state.cached != cached[page]
                || listed[page] != u32::from(!in_use)
            {
                return Err(format!(
                    "page {page}: {state:?}, listed free {} times; known users {}, in the cache {}",
                    listed[page], users[page], cached[page]
                ));
            }
        }
        let idle = self.states.iter().filter(|state| state.users == 0 && state.cached).count();
        let references: u64 = users.iter().map(|users| u64::from(*users)).sum();
        if (idle, references) == (self.idle, self.references) {
            Ok(())
        } else {
            Err(format!(
                "counted {idle} idle and {references} uses; kept {} and {}",
                self.idle, self.references
            ))
        }
    }
}
