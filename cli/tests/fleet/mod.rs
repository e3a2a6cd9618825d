//! A fleet started by the real `shoal up` with the real engine and gateway, in a directory of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "a test may fail, and uses its own part"
)]

use std::{
    fs,
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Fleets take the machine one after another.
static MACHINE: Mutex<()> = Mutex::new(());

/// Longest wait for anything that is not about time.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub fn shoal() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_shoal"))
}

/// Path of the test model, if it and the programs are there; says what is missing, and fails for it under
/// `SHOAL_REQUIRE_MODEL=1`.
pub fn model() -> Option<String> {
    let model = std::env::var("SHOAL_TEST_MODEL").ok().filter(|path| Path::new(path).exists());
    let programs = ["shoal-engine", "shoal-gateway"].map(|name| shoal().with_file_name(name));
    let missing: Vec<String> =
        programs.iter().filter(|path| !path.exists()).map(|path| path.display().to_string()).collect();
    if missing.is_empty() && model.is_some() {
        return model;
    }
    let lacked = if model.is_none() {
        "SHOAL_TEST_MODEL (path of the test model)".to_owned()
    } else {
        missing.join(", ")
    };
    assert!(std::env::var("SHOAL_REQUIRE_MODEL").as_deref() != Ok("1"), "lacked: {lacked}");
    eprintln!("skipped: lacked {lacked}");
    None
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub struct Fleet {
    pub folder: tempfile::TempDir,
    pub port: u16,
    pub model: String,
    pub up: Option<Child>,
    _machine: MutexGuard<'static, ()>,
}

impl Fleet {
    /// A directory without a fleet.
    pub fn new(model: &str) -> Self {
        let machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        Self { folder, port: free_port(), model: model.to_owned(), up: None, _machine: machine }
    }

    /// A fleet of one prefill and one decode instance that serves.
    pub fn serving(model: &str) -> Self {
        let mut fleet = Self::new(model);
        fleet.start(1, 1);
        fleet.wait_until("it serves", |fleet| fleet.is_complete("1/1", "1/1"));
        fleet
    }

    pub fn manifest(&self, prefill: i32, decode: i32) -> PathBuf {
        let path = self.folder.path().join("cluster.yaml");
        let (model, port) = (&self.model, self.port);
        let text = format!(
            "apiVersion: shoal.dev/v1alpha1\nkind: ServingCluster\nmetadata: {{ name: chat }}\nspec:\n  \
             model: {{ name: smollm2, source: {{ path: {model} }} }}\n  engine: {{ kvMemory: 128Mi, threads: 1 }}\n  \
             prefill: {{ replicas: {prefill} }}\n  decode: {{ replicas: {decode} }}\n  gateway: {{ port: {port} }}\n"
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// `shoal` with arguments, in this fleet's state directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(shoal());
        command.args(arguments).env("SHOAL_STATE_DIR", self.folder.path().join("state")).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn start(&mut self, prefill: i32, decode: i32) {
        let manifest = self.manifest(prefill, decode);
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("up.log")).unwrap();
        let mut command = self.command(&["up", "-f", manifest.to_str().unwrap()]);
        self.up = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default()
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("state/clusters/chat")
    }

    /// What `shoal get -o json` says of the cluster.
    pub fn status(&self) -> Value {
        let output = self.run(&["get", "chat", "-o", "json"]);
        let cluster: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        cluster["status"].clone()
    }

    /// The status as it was last written.
    pub fn published(&self) -> String {
        fs::read_to_string(self.dir().join("status.yaml")).unwrap()
    }

    pub fn condition(&self, kind: &str) -> (String, String) {
        let status = self.status();
        let found = status["conditions"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["type"] == kind))
            .cloned();
        let text =
            |field: &str| found.as_ref().and_then(|one| one[field].as_str()).unwrap_or_default().to_owned();
        (text("status"), text("message"))
    }

    /// Ready, nothing in progress, and these counts.
    pub fn is_complete(&self, prefill: &str, decode: &str) -> bool {
        let status = self.status();
        status["prefill"]["summary"] == prefill
            && status["decode"]["summary"] == decode
            && self.condition("Ready").0 == "True"
            && self.condition("Progressing").0 == "False"
    }

    /// Process of an instance or of the gateway, from its record.
    pub fn pid(&self, name: &str) -> Option<i32> {
        let path =
            if name == "gateway" { "gateway.json".to_owned() } else { format!("instances/{name}.json") };
        let record: Value = serde_json::from_slice(&fs::read(self.dir().join(path)).ok()?).ok()?;
        record["life"]["process"]["pid"].as_i64().map(|pid| pid as i32)
    }

    /// Processes whose command line names this fleet's directory, `shoal up` aside.
    pub fn processes(&self) -> Vec<i32> {
        let needle = self.dir().to_str().unwrap().to_owned();
        let pids = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&needle)
        })
        .collect()
    }

    pub fn signal_up(&self, signal: Signal) {
        send(self.up.as_ref().unwrap().id() as i32, signal);
    }

    /// Kills `shoal up` alone, as a crash would.
    pub fn kill_up(&mut self) {
        let mut up = self.up.take().unwrap();
        up.kill().unwrap();
        up.wait().unwrap();
    }

    /// How `shoal up` ended.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.up.as_mut().unwrap().try_wait().unwrap() {
                self.up = None;
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "still up:\n{}", self.said());
            std::thread::yield_now();
        }
    }

    pub fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !condition(self) {
            assert!(
                begun.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: {what}\n{}\n{:#}",
                self.said(),
                self.status()
            );
        }
    }

    /// One short answer of the fleet.
    pub fn chat(&self) -> Output {
        self.run(&["chat", "-m", "Say hello.", "--max-tokens", "8", "-t", "0", "--stats"])
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            let _ = up.kill();
            let _ = up.wait();
        }
        for pid in self.processes() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

pub fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn ended_by_itself(status: ExitStatus) -> Option<i32> {
    assert!(status.signal().is_none(), "{status:?}");
    status.code()
}
