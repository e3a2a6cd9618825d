//! One child process: started from a binary of this workspace, observed through `/proc`, never left behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::until;

#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `binary` of the same build as this one; its output goes to `folder/name.log`.
    pub fn start(name: &str, binary: &str, arguments: &[String], folder: &Path) -> Result<Self> {
        let program = build_folder()?.join(binary);
        ensure!(program.exists(), "{} is missing: run `cargo build --release` first", program.display());
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(&program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and wait until the process is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP: the process keeps its sockets and answers nothing.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, then waits for a clean exit.
    pub async fn terminate(&mut self, within: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        let name = self.name.clone();
        let child = &mut self.child;
        let mut ended = || child.try_wait()?.context("still running");
        let status =
            until(&format!("{name} ends after SIGTERM"), within, || std::future::ready(ended())).await?;
        ensure!(status.success(), "{name} ended with {status}\n{}", self.log_tail());
        Ok(())
    }

    /// `None` while it runs.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Open sockets, listening ones included.
    pub fn sockets(&self) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.pid());
        let links = std::fs::read_dir(&folder).with_context(|| format!("{} is gone", self.name))?;
        let is_socket = |entry: std::io::Result<std::fs::DirEntry>| {
            let link = std::fs::read_link(entry.ok()?.path()).ok()?;
            link.to_string_lossy().starts_with("socket:").then_some(())
        };
        Ok(links.filter_map(is_socket).count())
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024)
    }

    /// How often its output has a text.
    pub fn logged(&self, text: &str) -> Result<usize> {
        Ok(std::fs::read_to_string(&self.log)?.matches(text).count())
    }

    /// The last lines of its output, for messages.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid().cast_signed()).context("pid 0")?;
        kill_process(pid, signal).with_context(|| format!("{signal:?} to {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that already ended is fine; there is nobody left to tell about anything else.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of this build's binaries: tests run from its `deps`, examples from its `examples`.
pub fn build_folder() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().context("a binary has a folder")?;
    let nested = ["deps", "examples"].iter().any(|name| folder.ends_with(name));
    let folder = if nested { folder.parent().context("a build folder")? } else { folder };
    Ok(folder.to_owned())
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
