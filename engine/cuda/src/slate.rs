//! A decode batch's inputs, where graphs find them.

use std::ops::Range;

use shoal_kernels::{
    ArgmaxScratch, Buffer, Draws, KvPages, LaunchError, NO_SLOT, PAGE_TOKENS, PageTable, Pinned, Queue, Rows,
    Standing, advance, draw,
};
use shoal_model::{Draw, LogitRows, SequenceRows};

use crate::buckets;
use crate::inputs::{Limits, Step};
use crate::runner::Kv;

/// Numbers of a row: id, position, slot, length, then of its draw temperature, index, low and high half of the seed.
const NUMBERS: usize = 8;

/// Padding rows have length 0.
#[derive(Debug)]
pub(crate) struct Slate {
    /// `[NUMBERS][capacity]`
    numbers: Buffer<u32>,
    capacity: usize,
    /// `[capacity][columns]`; an entry that no page fills is past the arena.
    table: Buffer<u32>,
    columns: usize,
    host_numbers: Pinned<u32>,
    /// As the device has it, so that only what changed is sent.
    host_table: Pinned<u32>,
    /// Pages of each row of the table.
    known: Vec<usize>,
}

impl Slate {
    pub(crate) fn new(queue: &Queue, limits: &Limits) -> Result<Self, LaunchError> {
        let (gpu, capacity, columns) = (queue.gpu(), buckets::decode(limits.sequences), limits.columns);
        let mut host_table = Pinned::new(gpu, capacity * columns)?;
        host_table.get_mut()?.fill(u32::MAX);
        let mut table = Buffer::new(gpu, capacity * columns)?;
        host_table.send(queue, &mut table, 0, capacity * columns)?;
        Ok(Self {
            numbers: Buffer::new(gpu, NUMBERS * capacity)?,
            capacity,
            table,
            columns,
            host_numbers: Pinned::new(gpu, NUMBERS * capacity)?,
            host_table,
            known: vec![0; capacity],
        })
    }

    /// Puts a batch, one token each, into the first rows; the others are padding.
    pub(crate) fn fill(&mut self, queue: &Queue, batch: &[SequenceRows<'_>]) -> Result<(), LaunchError> {
        let capacity = self.capacity;
        let numbers = self.host_numbers.get_mut()?;
        numbers.fill(0);
        numbers[2 * capacity..3 * capacity].fill(NO_SLOT);
        for (row, sequence) in batch.iter().enumerate() {
            let position = sequence.start;
            let page = sequence.pages[position / PAGE_TOKENS];
            let slot = page * PAGE_TOKENS as u32 + (position % PAGE_TOKENS) as u32;
            let [temperature, index, low, high] = draw_numbers(sequence.logits);
            let all = [
                sequence.tokens[0],
                position as u32,
                slot,
                position as u32 + 1,
                temperature,
                index,
                low,
                high,
            ];
            for (place, number) in all.into_iter().enumerate() {
                numbers[place * capacity + row] = number;
            }
        }
        self.host_numbers.send(queue, &mut self.numbers, 0, NUMBERS * capacity)?;
        let changed = self.fill_table(batch)?;
        let (first, len) = (changed.start * self.columns, changed.len() * self.columns);
        if len > 0 {
            self.host_table.send_part(queue, first, &mut self.table, first, len)?;
        }
        Ok(())
    }

    /// Returns the rows from the first to the last that changed.
    fn fill_table(&mut self, batch: &[SequenceRows<'_>]) -> Result<Range<usize>, LaunchError> {
        let Self { host_table, known, columns, .. } = self;
        let table = host_table.get_mut()?;
        let mut changed = 0..0;
        for (row, sequence) in batch.iter().enumerate() {
            let pages = &sequence.pages[..sequence.pages.len().min(*columns)];
            let entries = &mut table[row * *columns..][..*columns];
            if known[row] == pages.len() && entries.starts_with(pages) {
                continue;
            }
            entries[..pages.len()].copy_from_slice(pages);
            entries[pages.len()..known[row].max(pages.len())].fill(u32::MAX);
            known[row] = pages.len();
            changed = if changed.is_empty() { row..row + 1 } else { changed.start..row + 1 };
        }
        Ok(changed)
    }

    fn array(&self, place: usize, rows: usize) -> Result<Rows<'_, u32>, LaunchError> {
        self.numbers.strided(place * self.capacity, 1, rows, rows)
    }

    pub(crate) fn step(&self, rows: usize) -> Result<Step<'_>, LaunchError> {
        let table = PageTable { pages: self.table.rows(rows, self.columns)?, lengths: self.array(3, rows)? };
        Ok(Step {
            rows,
            ids: self.array(0, rows)?,
            positions: self.array(1, rows)?,
            slots: self.array(2, rows)?,
            decode: Some(table),
            prefill: None,
            picks: None,
        })
    }

    /// Draws every row's next id from its logits, and moves the row on to it.
    pub(crate) fn draw(
        &mut self,
        queue: &Queue,
        logits: Rows<'_, f32>,
        scratch: &mut ArgmaxScratch,
        pages: &KvPages<Kv>,
    ) -> Result<(), LaunchError> {
        let rows = logits.count();
        let [mut ids, mut positions, mut slots, mut lengths, temperatures, mut indices, low, high] =
            self.numbers.arrays_mut::<NUMBERS>(self.capacity, rows)?;
        let draws = Draws {
            temperatures: temperatures.rows(),
            indices: indices.rows(),
            seeds: [low.rows(), high.rows()],
        };
        draw(queue, logits, draws, scratch, &mut ids)?;
        let mut standing = Standing {
            lengths: &mut lengths,
            positions: &mut positions,
            slots: &mut slots,
            indices: &mut indices,
        };
        advance(queue, self.table.rows(rows, self.columns)?, pages, &mut standing)
    }

    /// Enqueues a copy of the first `rows` ids.
    pub(crate) fn send_ids(
        &self,
        queue: &Queue,
        to: &mut Pinned<u32>,
        rows: usize,
    ) -> Result<(), LaunchError> {
        to.receive(queue, &self.numbers, 0, rows)
    }
}

/// Temperature, index, low and high half of the seed; a row that does not draw is greedy, which costs least.
pub(crate) fn draw_numbers(logits: LogitRows) -> [u32; 4] {
    match logits {
        LogitRows::Drawn(Draw { temperature, seed, index }) => {
            [temperature.to_bits(), index, seed as u32, (seed >> 32) as u32]
        }
        LogitRows::None | LogitRows::Last => [0; 4],
    }
}
