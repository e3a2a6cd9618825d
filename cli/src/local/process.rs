//! Processes by pid and start time: a pid alone is reused, the pair is not.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks after boot at which it started.
    pub(crate) start: u64,
}

impl Identity {
    /// The process that has this pid now; `None` if none has, or only its exit status is left.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; fields count from the last one: state is the first,
        // the start time the twentieth.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        if matches!(fields.first(), Some(&"Z" | &"X")) {
            return None;
        }
        Some(Self { pid, start: fields.get(19)?.parse().ok()? })
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Sends `signal` if the process is still this one.
    pub(crate) fn signal(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid)) {
            // It may end between the question and the signal; that is what was wanted.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to end in its own way. A stopped process is woken, or it would never hear.
    pub(crate) fn ask_to_end(&self) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }
}

pub(crate) fn end_now(identity: &Identity) {
    identity.signal(Signal::KILL);
}

/// Processes that were started with a ready file in `run_dir`: what a host started and did not live to
/// record.
pub(super) fn started_for(run_dir: &Path) -> Vec<Identity> {
    let prefix = [run_dir.as_os_str().as_encoded_bytes(), b"/"].concat();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            arguments.windows(2).any(|pair| pair[0] == b"--ready-file" && pair[1].starts_with(&prefix))
        })
        .filter_map(Identity::of)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_until_it_ends_and_no_other_before_or_after() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id() as i32).unwrap();
        assert!(identity.is_alive());
        assert!(!Identity { start: identity.start + 1, ..identity }.is_alive());
        end_now(&identity);
        while identity.is_alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(Identity::of(identity.pid) != Some(identity));
    }
}
