//! What one step computes on, from the scheduler's rows to one array that is copied to the device.

use shoal_kernels::{Buffer, Draws, LaunchError, NO_SLOT, PAGE_TOKENS, PageTable, Rows};
use shoal_model::{LogitRows, SequenceRows};

use crate::slate::draw_numbers;
use crate::{StepError, buckets};

/// Bounds of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) tokens: usize,
    pub(crate) sequences: usize,
    /// Pages of a sequence.
    pub(crate) columns: usize,
    pub(crate) vocabulary: usize,
    /// Pages of the device.
    pub(crate) pages: usize,
}

/// Refuses what the step could not compute, before anything is touched.
pub(crate) fn check(batch: &[SequenceRows<'_>], limits: &Limits) -> Result<(), StepError> {
    let too_many = |what, found, most| Err(StepError::TooMany { what, found, most });
    if batch.len() > limits.sequences {
        return too_many("sequences", batch.len(), limits.sequences);
    }
    let tokens = batch.iter().map(|sequence| sequence.tokens.len()).sum();
    if tokens > limits.tokens {
        return too_many("tokens", tokens, limits.tokens);
    }
    for (index, sequence) in batch.iter().enumerate() {
        check_sequence(index, sequence, limits)?;
    }
    Ok(())
}

fn check_sequence(index: usize, sequence: &SequenceRows<'_>, limits: &Limits) -> Result<(), StepError> {
    let (tokens, start) = (sequence.tokens.len(), sequence.start);
    if tokens == 0 {
        return Err(StepError::Empty { sequence: index });
    }
    if let Some(token) = sequence.tokens.iter().find(|token| **token as usize >= limits.vocabulary) {
        return Err(StepError::Token { token: *token, vocabulary: limits.vocabulary });
    }
    let needed = pages_of(start.saturating_add(tokens));
    if needed > limits.columns {
        return Err(StepError::TooMany { what: "pages of a sequence", found: needed, most: limits.columns });
    }
    let given = sequence.pages.len();
    let Some(used) = sequence.pages.get(..needed) else {
        return Err(StepError::Pages { tokens, start, needed, given });
    };
    match used.iter().find(|page| **page as usize >= limits.pages) {
        Some(page) => Err(StepError::Page { page: *page, pages: limits.pages }),
        None => Ok(()),
    }
}

pub(crate) fn pages_of(tokens: usize) -> usize {
    tokens.div_ceil(PAGE_TOKENS)
}

/// `page · 64 + offset` of a position.
fn slot(pages: &[u32], position: usize) -> u32 {
    pages
        .get(position / PAGE_TOKENS)
        .map_or(NO_SLOT, |page| page * PAGE_TOKENS as u32 + (position % PAGE_TOKENS) as u32)
}

/// Numbers of a step and the places of its arrays in one device buffer:
/// `ids | positions | slots | lengths | starts | picks | four numbers of draws, by pick | page table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Rows that mean something, and with padding.
    pub(crate) tokens: usize,
    pub(crate) rows: usize,
    /// Sequences of one token, which come first, and the others.
    pub(crate) decode: usize,
    pub(crate) prefill: usize,
    /// Most new tokens of a sequence.
    pub(crate) longest: usize,
    /// Rows of logits asked for, and with padding.
    pub(crate) wanted: usize,
    pub(crate) picks: usize,
    pub(crate) columns: usize,
}

impl Layout {
    fn sequences(&self) -> usize {
        self.decode + self.prefill
    }

    fn offsets(&self) -> [usize; 8] {
        let sizes =
            [self.rows, self.rows, self.rows, self.sequences(), self.prefill + 1, self.picks, 4 * self.picks];
        let mut offsets = [0; 8];
        for (index, size) in sizes.iter().enumerate() {
            offsets[index + 1] = offsets[index] + size;
        }
        offsets
    }

    pub(crate) fn len(&self) -> usize {
        self.offsets()[7] + self.sequences() * self.columns
    }

    /// The largest of any step within the limits.
    pub(crate) fn most(limits: &Limits) -> usize {
        let (rows, sequences) = (buckets::rows(limits.tokens), buckets::rows(limits.sequences));
        3 * rows + 7 * sequences + 1 + sequences * limits.columns
    }

    /// Orders the batch and writes its arrays to `host`.
    pub(crate) fn write(batch: &[SequenceRows<'_>], host: &mut [u32]) -> Self {
        let order: Vec<usize> = order(batch);
        let layout = Self::of(batch);
        let [_, positions, slots, lengths, starts, picks, draws, table] = layout.offsets();
        host[..layout.len()].fill(0);
        host[slots..lengths].fill(NO_SLOT);
        let mut row = 0;
        let mut pick = vec![0; batch.len()];
        for (place, index) in order.iter().copied().enumerate() {
            let SequenceRows { tokens, start, pages, .. } = batch[index];
            if place >= layout.decode {
                host[starts + place - layout.decode] = (row - layout.decode) as u32;
            }
            for (i, token) in tokens.iter().enumerate() {
                host[row] = *token;
                host[positions + row] = (start + i) as u32;
                host[slots + row] = slot(pages, start + i);
                row += 1;
            }
            pick[index] = row as u32 - 1;
            host[lengths + place] = (start + tokens.len()) as u32;
            let used = pages_of(start + tokens.len());
            host[table + place * layout.columns..][..used].copy_from_slice(&pages[..used]);
        }
        host[starts + layout.prefill] = (row - layout.decode) as u32;
        let wanted = batch.iter().zip(&pick).filter(|(sequence, _)| wants_row(sequence));
        for (place, (sequence, row)) in wanted.enumerate() {
            host[picks + place] = *row;
            for (array, number) in draw_numbers(sequence.logits).into_iter().enumerate() {
                host[draws + array * layout.picks + place] = number;
            }
        }
        layout
    }

    pub(crate) fn of(batch: &[SequenceRows<'_>]) -> Self {
        let tokens = batch.iter().map(|sequence| sequence.tokens.len()).sum();
        let decode = batch.iter().filter(|sequence| sequence.tokens.len() == 1).count();
        let wanted = batch.iter().filter(|sequence| wants_row(sequence)).count();
        let end = |sequence: &SequenceRows<'_>| sequence.start + sequence.tokens.len();
        Self {
            tokens,
            rows: buckets::rows(tokens),
            decode,
            prefill: batch.len() - decode,
            longest: batch.iter().map(|sequence| sequence.tokens.len()).max().unwrap_or(0),
            wanted,
            picks: buckets::rows(wanted),
            columns: pages_of(batch.iter().map(end).max().unwrap_or(0)),
        }
    }

    /// How each row of logits draws.
    pub(crate) fn draws<'a>(&self, buffer: &'a Buffer<u32>) -> Result<Draws<'a>, LaunchError> {
        let first = self.offsets()[6];
        let array = |place| buffer.strided(first + place * self.picks, 1, self.picks, self.picks);
        Ok(Draws { temperatures: array(0)?, indices: array(1)?, seeds: [array(2)?, array(3)?] })
    }

    pub(crate) fn views<'a>(&self, buffer: &'a Buffer<u32>) -> Result<Step<'a>, LaunchError> {
        let [ids, positions, slots, lengths, starts, picks, _, table] = self.offsets();
        let flat = |offset, len| buffer.strided(offset, 1, len, len);
        let sequences = |first: usize, count: usize| -> Result<PageTable<'a>, LaunchError> {
            Ok(PageTable {
                pages: buffer.strided(table + first * self.columns, count, self.columns, self.columns)?,
                lengths: flat(lengths + first, count)?,
            })
        };
        let prefill = match self.prefill {
            0 => None,
            count => Some(Runs {
                table: sequences(self.decode, count)?,
                starts: flat(starts, count + 1)?,
                longest: self.longest,
                tokens: self.tokens - self.decode,
            }),
        };
        Ok(Step {
            rows: self.rows,
            ids: flat(ids, self.rows)?,
            positions: flat(positions, self.rows)?,
            slots: flat(slots, self.rows)?,
            decode: if self.decode == 0 { None } else { Some(sequences(0, self.decode)?) },
            prefill,
            picks: Some(flat(picks, self.picks)?),
        })
    }
}

/// Whether a row of logits is computed for a sequence.
pub(crate) fn wants_row(sequence: &SequenceRows<'_>) -> bool {
    sequence.logits != LogitRows::None
}

/// Places of the batch's sequences: those of one token first, in their order.
fn order(batch: &[SequenceRows<'_>]) -> Vec<usize> {
    let single = |index: &usize| batch[*index].tokens.len() == 1;
    let (decode, prefill): (Vec<_>, Vec<_>) = (0..batch.len()).partition(single);
    [decode, prefill].concat()
}

/// Views of a step's arrays on the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) rows: usize,
    pub(crate) ids: Rows<'a, u32>,
    pub(crate) positions: Rows<'a, u32>,
    pub(crate) slots: Rows<'a, u32>,
    /// The sequences of the first rows, one row each.
    pub(crate) decode: Option<PageTable<'a>>,
    pub(crate) prefill: Option<Runs<'a>>,
    /// Rows that get logits; `None` is all of them.
    pub(crate) picks: Option<Rows<'a, u32>>,
}

/// Sequences of several rows, behind those of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runs<'a> {
    pub(crate) table: PageTable<'a>,
    /// Relative to the first of their rows.
    pub(crate) starts: Rows<'a, u32>,
    pub(crate) longest: usize,
    pub(crate) tokens: usize,
}

#[cfg(test)]
mod tests {
    use shoal_model::Draw;

    use super::*;

    const LIMITS: Limits = Limits { tokens: 100, sequences: 4, columns: 4, vocabulary: 50, pages: 9 };

    fn rows<'a>(tokens: &'a [u32], start: usize, pages: &'a [u32], logits: LogitRows) -> SequenceRows<'a> {
        SequenceRows { tokens, start, pages, logits }
    }

    #[test]
    fn single_tokens_come_first_and_logits_keep_the_batch_order() {
        let batch = [
            rows(&[1, 2, 3], 62, &[4, 7], LogitRows::Last),
            rows(
                &[9],
                64,
                &[2, 5],
                LogitRows::Drawn(Draw { temperature: 0.5, seed: 3 << 32 | 7, index: 11 }),
            ),
            rows(&[5, 6], 0, &[1], LogitRows::None),
        ];
        check(&batch, &LIMITS).expect("fits");
        let mut host = vec![77; Layout::most(&LIMITS)];
        let layout = Layout::write(&batch, &mut host);
        let [_, positions, slots, lengths, starts, picks, draws, table] = layout.offsets();
        assert_eq!((layout.tokens, layout.rows, layout.decode, layout.prefill), (6, 8, 1, 2));
        assert_eq!(host[..8], [9, 1, 2, 3, 5, 6, 0, 0]);
        assert_eq!(host[positions..slots], [64, 62, 63, 64, 0, 1, 0, 0]);
        assert_eq!(host[slots..lengths], [320, 318, 319, 448, 64, 65, NO_SLOT, NO_SLOT]);
        assert_eq!(host[lengths..starts], [65, 65, 2]);
        assert_eq!(host[starts..picks], [0, 3, 5]);
        assert_eq!(host[picks..draws], [3, 0], "rows of the first and the second sequence");
        assert_eq!(host[draws..table], [0, 0.5_f32.to_bits(), 0, 11, 0, 7, 0, 3], "only the second draws");
        assert_eq!(host[table..layout.len()], [2, 5, 4, 7, 1, 0]);
        assert!(layout.len() <= Layout::most(&LIMITS));
    }

    #[test]
    fn what_cannot_run_is_refused_by_its_number() {
        let refused = |sequence| check(&[sequence], &LIMITS).expect_err("refused").to_string();
        assert!(refused(rows(&[], 0, &[1], LogitRows::None)).contains("no tokens"));
        assert!(refused(rows(&[50], 0, &[1], LogitRows::None)).contains("token 50"));
        assert!(refused(rows(&[1], 64, &[1], LogitRows::None)).contains("need 2 pages; 1"));
        assert!(refused(rows(&[1], 0, &[9], LogitRows::None)).contains("page 9"));
        assert!(refused(rows(&[1], 256, &[1, 2, 3, 4, 5], LogitRows::None)).contains("at most 4"));
        assert!(refused(rows(&[1; 101], 0, &[1, 2], LogitRows::None)).contains("101 tokens"));
        let one = rows(&[1], 0, &[1], LogitRows::None);
        assert!(check(&[one; 5], &LIMITS).expect_err("refused").to_string().contains("5 sequences"));
    }
}
