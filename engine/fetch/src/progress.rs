//! How far everything is, for people and for the operator.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// What a file is going through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[repr(u8)]
pub enum Phase {
    /// Somebody else writes it: another pod that shares the folder.
    Waiting,
    /// Bytes arrive.
    Downloading,
    /// Bytes that were there already are read again.
    Verifying,
    Done,
}

/// One file's progress; written by whoever fetches it.
#[derive(Debug)]
pub struct Progress {
    total: AtomicU64,
    done: AtomicU64,
    phase: AtomicU8,
}

impl Progress {
    pub fn of(total: u64) -> Self {
        let phase = AtomicU8::new(Phase::Downloading as u8);
        Self { total: AtomicU64::new(total), done: AtomicU64::new(0), phase }
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Bytes of the file that are known to be there.
    pub fn reached(&self, bytes: u64) {
        self.done.store(bytes, Relaxed);
    }

    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    pub fn finish(&self) {
        self.reached(self.total());
        self.enter(Phase::Done);
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Waiting,
            1 => Phase::Downloading,
            2 => Phase::Verifying,
            _ => Phase::Done,
        }
    }
}

/// All files together. The names of the fields are what `GET /progress` shows and the operator reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub phase: Phase,
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub files_done: usize,
    pub files: usize,
}

/// Downloading as long as one file does; waiting only if nothing else is left to do.
pub fn report(files: &[Progress]) -> Report {
    let phases: Vec<Phase> = files.iter().map(Progress::phase).collect();
    let seen = |phase| phases.contains(&phase);
    let order = [Phase::Downloading, Phase::Verifying, Phase::Waiting];
    Report {
        phase: order.into_iter().find(|phase| seen(*phase)).unwrap_or(Phase::Done),
        bytes_done: files.iter().map(|file| file.done.load(Relaxed)).sum(),
        bytes_total: files.iter().map(Progress::total).sum(),
        files_done: phases.iter().filter(|phase| **phase == Phase::Done).count(),
        files: files.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_sums_all_files_and_names_what_still_moves() {
        let files = [Progress::of(10), Progress::of(30)];
        files[0].finish();
        files[1].reached(5);
        let told = report(&files);
        assert_eq!((told.phase, told.bytes_done, told.bytes_total), (Phase::Downloading, 15, 40));
        files[1].enter(Phase::Waiting);
        assert_eq!(report(&files).phase, Phase::Waiting);
        files[1].finish();
        assert_eq!((report(&files).phase, report(&files).files_done), (Phase::Done, 2));
    }
}
