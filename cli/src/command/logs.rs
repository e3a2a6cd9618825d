//! `shoal logs`: what processes print.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::PathBuf,
    time::Duration,
};

use clap::Args;

use super::State;
use crate::{
    failure::{Attempt, Failure},
    local::ClusterDir,
};

const PERIOD: Duration = Duration::from_millis(200);
/// Bytes looked at for the last lines of a log.
const TAIL: u64 = 256 << 10;

const EXAMPLES: &str = "\
Examples:
  shoal logs              the last lines of every process
  shoal logs chat-0 -f    follow one instance
  shoal logs gateway";

/// Show the output of instances and gateway.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Logs {
    /// Instance name, or gateway [default: all]
    instance: Option<String>,
    /// Go on with what is printed from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Lines shown of each log, 0 for none
    #[arg(long, default_value_t = 50, value_name = "LINES")]
    tail: usize,
    /// Name of the cluster [default: the only one]
    #[arg(short, long, value_name = "NAME")]
    cluster: Option<String>,
    #[command(flatten)]
    state: State,
}

impl Logs {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let dir = self.state.open()?.find(self.cluster.as_deref())?;
        let mut logs = open(&dir, self.instance.as_deref())?;
        let several = logs.len() > 1;
        for log in &mut logs {
            log.show_last(self.tail, several)?;
        }
        if !self.follow {
            return Ok(());
        }
        loop {
            tokio::time::sleep(PERIOD).await;
            for log in &mut logs {
                log.show_new(several)?;
            }
        }
    }
}

struct Log {
    name: String,
    path: PathBuf,
    /// Bytes shown so far.
    shown: u64,
}

fn open(dir: &ClusterDir, instance: Option<&str>) -> Result<Vec<Log>, Failure> {
    let folder = dir.path.join("logs");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".log")?.to_owned()))
        .collect();
    names.sort();
    let known = names.join(", ");
    if let Some(wanted) = instance {
        names.retain(|name| name == wanted);
        if names.is_empty() {
            return Err(Failure::not_found(format!(
                "{wanted:?} has no log in {:?}; known: {known}",
                dir.name
            )));
        }
    }
    Ok(names.into_iter().map(|name| Log { path: dir.log_path(&name), name, shown: 0 }).collect())
}

impl Log {
    fn show_last(&mut self, lines: usize, prefixed: bool) -> Result<(), Failure> {
        let length = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        self.shown = length.saturating_sub(TAIL);
        let text = self.read()?;
        let skipped = text.lines().count().saturating_sub(lines);
        let last: String = text.lines().skip(skipped).flat_map(|line| [line, "\n"]).collect();
        self.print(&last, prefixed)
    }

    fn show_new(&mut self, prefixed: bool) -> Result<(), Failure> {
        let text = self.read()?;
        self.print(&text, prefixed)
    }

    /// Reads what was not shown yet, up to the last whole line.
    fn read(&mut self) -> Result<String, Failure> {
        let attempt = || format!("cannot read {}", self.path.display());
        let mut file = File::open(&self.path).attempt(attempt)?;
        file.seek(SeekFrom::Start(self.shown)).attempt(attempt)?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes).attempt(attempt)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        bytes.truncate(whole);
        self.shown += whole as u64;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn print(&self, text: &str, prefixed: bool) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        for line in text.lines() {
            let written =
                if prefixed { writeln!(out, "{}  {line}", self.name) } else { writeln!(out, "{line}") };
            written.attempt(|| "cannot print".to_owned())?;
        }
        Ok(())
    }
}
