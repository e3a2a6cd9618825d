//! Transfers this instance waits for, and the rule that decides whether a frame may touch a page.
//!
//! Looking a transfer up and borrowing its page are one step under one lock, and closing a transfer takes
//! the same lock: once closed, no new byte is written for it. A borrow made before is noticed by the page
//! pool, which does not reuse a held page.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use shoal_model::{KvGeometry, PageArena, PageWrite};
use shoal_wire::frame::PageHeader;
use tokio::sync::watch;

use super::Rate;
use crate::kv::Generations;
use crate::request::Slot;

/// Closed transfers remembered, to tell a late frame from an unknown one.
const REMEMBERED: usize = 1024;

/// What a transfer brings: `slots` hold the tokens `first_token..tokens` of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub first_token: usize,
    pub tokens: usize,
    pub slots: Vec<Slot>,
}

/// What has arrived so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Landing {
    pub pages: usize,
    pub tokens: usize,
    pub payload_bytes: u64,
    /// Set once: no further page will land.
    pub failed: Option<&'static str>,
}

/// Why a frame was read to its end and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedFrame {
    Unknown,
    Late,
    Slot,
    Generation,
    Duplicate,
    Length,
    Corrupt,
    Oversized,
}

impl RefusedFrame {
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Late,
        Self::Slot,
        Self::Generation,
        Self::Duplicate,
        Self::Length,
        Self::Corrupt,
        Self::Oversized,
    ];

    /// Value of the metric's `reason` label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Late => "late",
            Self::Slot => "slot",
            Self::Generation => "generation",
            Self::Duplicate => "duplicate",
            Self::Length => "length",
            Self::Corrupt => "corrupt",
            Self::Oversized => "oversized",
        }
    }
}

struct Entry {
    expected: Expected,
    landed: Vec<bool>,
    landing: watch::Sender<Landing>,
    closed: Arc<AtomicBool>,
}

#[derive(Default)]
struct Transfers {
    open: HashMap<u64, Entry>,
    closed: VecDeque<u64>,
}

/// All incoming transfers of this process.
pub struct TransferTable {
    arena: Arc<PageArena>,
    generations: Generations,
    geometry: KvGeometry,
    transfers: Mutex<Transfers>,
    refused: [AtomicU64; RefusedFrame::ALL.len()],
    payload_bytes: AtomicU64,
    pub(super) rate: Arc<Rate>,
}

impl std::fmt::Debug for TransferTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransferTable").field("open", &self.open_transfers()).finish_non_exhaustive()
    }
}

impl TransferTable {
    pub fn new(
        arena: Arc<PageArena>,
        generations: Generations,
        geometry: KvGeometry,
        rate: Arc<Rate>,
    ) -> Arc<Self> {
        Arc::new(Self {
            arena,
            generations,
            geometry,
            transfers: Mutex::default(),
            refused: Default::default(),
            payload_bytes: AtomicU64::new(0),
            rate,
        })
    }

    /// Opens a transfer under a random id. Dropping the result closes it.
    pub fn open(self: &Arc<Self>, expected: Expected) -> std::io::Result<Incoming> {
        let (sender, landing) = watch::channel(Landing::default());
        let landed = vec![false; expected.slots.len()];
        let id = u64::from_le_bytes(super::random()?);
        let entry = Entry { expected, landed, landing: sender, closed: Arc::default() };
        self.transfers.lock().open.insert(id, entry);
        Ok(Incoming { id, table: Arc::clone(self), landing })
    }

    pub fn open_transfers(&self) -> usize {
        self.transfers.lock().open.len()
    }

    /// Frames refused for a reason since start.
    pub fn refused(&self, reason: RefusedFrame) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    pub fn refused_total(&self) -> u64 {
        RefusedFrame::ALL.into_iter().map(|reason| self.refused(reason)).sum()
    }

    /// KV payload bytes that landed since start.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn geometry(&self) -> &KvGeometry {
        &self.geometry
    }

    pub(super) fn count_refused(&self, reason: RefusedFrame) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Checks a header against the transfer it names and borrows its page. Nothing is read or allocated for
    /// a frame before this said yes.
    pub(super) fn claim(&self, header: &PageHeader) -> Result<Claim, RefusedFrame> {
        let transfers = self.transfers.lock();
        let Some(entry) = transfers.open.get(&header.transfer) else {
            let late = transfers.closed.contains(&header.transfer);
            return Err(if late { RefusedFrame::Late } else { RefusedFrame::Unknown });
        };
        let (index, tokens) = entry.expected.position(header, &self.geometry)?;
        if header.payload_bytes != (tokens * self.geometry.token_bytes()) as u64 {
            return Err(RefusedFrame::Length);
        }
        if entry.landed[index] {
            return Err(RefusedFrame::Duplicate);
        }
        let page = self.arena.write(header.slot).ok_or(RefusedFrame::Duplicate)?;
        // Asked after borrowing: the pool may just have taken the page from a request that ended.
        if !self.generations.is_current(entry.expected.slots[index]) {
            return Err(RefusedFrame::Generation);
        }
        Ok(Claim { transfer: header.transfer, index, tokens, page, closed: Arc::clone(&entry.closed) })
    }

    /// The claimed page holds what the header announced.
    pub(super) fn land(&self, claim: Claim, payload_bytes: u64) -> Result<(), RefusedFrame> {
        let Claim { transfer, index, tokens, page, closed: _ } = claim;
        let mut transfers = self.transfers.lock();
        // Whoever is woken by the landing may borrow the page at once.
        drop(page);
        let entry = transfers.open.get_mut(&transfer).ok_or(RefusedFrame::Late)?;
        entry.landed[index] = true;
        entry.landing.send_modify(|landing| {
            landing.pages += 1;
            landing.tokens += tokens;
            landing.payload_bytes += payload_bytes;
        });
        self.payload_bytes.fetch_add(payload_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Ends a transfer that can no longer complete; its owner is woken.
    pub(super) fn fail(&self, transfer: u64, why: &'static str) {
        if let Some(entry) = self.transfers.lock().open.get(&transfer) {
            entry.landing.send_modify(|landing| landing.failed = landing.failed.or(Some(why)));
        }
    }

    fn close(&self, transfer: u64) {
        let mut transfers = self.transfers.lock();
        if let Some(entry) = transfers.open.remove(&transfer) {
            entry.closed.store(true, Ordering::Release);
            transfers.closed.push_back(transfer);
            if transfers.closed.len() > REMEMBERED {
                transfers.closed.pop_front();
            }
        }
    }

    fn landed_pages(&self, transfer: u64) -> usize {
        let transfers = self.transfers.lock();
        transfers.open.get(&transfer).map_or(0, |entry| entry.landed.iter().take_while(|l| **l).count())
    }
}

impl Expected {
    /// Index of the page a header speaks of, and the tokens it must hold.
    fn position(&self, header: &PageHeader, geometry: &KvGeometry) -> Result<(usize, usize), RefusedFrame> {
        let start = header.first_token as usize;
        let offset = start.checked_sub(self.first_token).ok_or(RefusedFrame::Slot)?;
        let index = offset / geometry.page_tokens;
        let slot = self.slots.get(index).ok_or(RefusedFrame::Slot)?;
        if !offset.is_multiple_of(geometry.page_tokens) || slot.page != header.slot {
            return Err(RefusedFrame::Slot);
        }
        if slot.generation != header.generation {
            return Err(RefusedFrame::Generation);
        }
        let tokens = self.tokens.saturating_sub(start).min(geometry.page_tokens);
        if tokens == 0 || header.tokens as usize != tokens {
            return Err(RefusedFrame::Length);
        }
        Ok((index, tokens))
    }
}

/// Permission to write one page of one transfer.
#[derive(Debug)]
pub(super) struct Claim {
    transfer: u64,
    index: usize,
    pub(super) tokens: usize,
    pub(super) page: PageWrite,
    closed: Arc<AtomicBool>,
}

impl Claim {
    /// True once nobody waits for the page any more; the writer must let go.
    pub(super) fn closed_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.closed)
    }
}

/// An open transfer, owned by the request that waits for it.
#[derive(Debug)]
pub struct Incoming {
    id: u64,
    table: Arc<TransferTable>,
    landing: watch::Receiver<Landing>,
}

impl Incoming {
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn landing(&self) -> Landing {
        self.landing.borrow().clone()
    }

    /// Waits for the next page or the failure.
    pub async fn changed(&mut self) -> Landing {
        // The table keeps the sender until `self` is dropped.
        let _ = self.landing.changed().await;
        self.landing.borrow_and_update().clone()
    }

    /// Pages that landed without a gap from the first slot on.
    pub fn landed_pages(&self) -> usize {
        self.table.landed_pages(self.id)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.table.close(self.id);
    }
}
