//! Starts processes and collects how they ended.
//!
//! Each gets a process group of its own, so that Ctrl-C reaches this program alone, and its output goes to a
//! file, so that it lives on when this program does not.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::{fs::OpenOptionsExt, process::CommandExt, process::ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use super::process::Identity;

/// Bytes at the end of a log in which the error is looked for.
const TAIL: u64 = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Children {
    running: HashMap<i32, Child>,
    ended: HashMap<i32, ExitStatus>,
}

impl Children {
    pub(super) fn start(&mut self, program: &Path, arguments: &[String], log: &Path) -> io::Result<Identity> {
        let output = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()?;
        let pid = child.id() as i32;
        self.running.insert(pid, child);
        // A process that ended already still has its entry until it is waited for.
        Ok(Identity::of(pid).unwrap_or(Identity { pid, start: 0 }))
    }

    /// Collects the exit status of every child that ended.
    pub(super) fn reap(&mut self) {
        let mut ended = Vec::new();
        self.running.retain(|pid, child| match child.try_wait() {
            Ok(Some(status)) => {
                ended.push((*pid, status));
                false
            }
            Ok(None) => true,
            Err(_) => false,
        });
        self.ended.extend(ended);
    }

    /// How a process that is gone ended, once.
    pub(super) fn exit_of(&mut self, identity: &Identity) -> String {
        match self.ended.remove(&identity.pid) {
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "gone".to_owned(),
            },
            None => "gone".to_owned(),
        }
    }
}

/// Why a process ended, as far as its log tells.
pub(super) fn last_words(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    shoal_plan::last_words(&String::from_utf8_lossy(&bytes))
}
