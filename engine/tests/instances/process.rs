//! The engine as a process: ready file, signals, refusals at start, metrics.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use shoal_wire::FleetSecret;
use shoal_wire::rpc::engine_client::EngineClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Request;

use crate::fleet::{PATIENCE, Weights, first_token, greedy, prompt, request};

const SECRET: &str = "0123456789abcdef0123456789abcdef-test";

struct Process {
    child: Child,
    folder: tempfile::TempDir,
}

impl Process {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, SECRET).expect("written");
        let log = std::fs::File::create(folder.path().join("log")).expect("created");
        let mut command = command(&secret, &folder.path().join("ready.json"), more);
        let child = command.args(["--kv-memory", "8MiB"]).stderr(log).spawn().expect("it starts");
        Self { child, folder }
    }

    async fn ready(&mut self) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            if let Ok(text) = std::fs::read(self.folder.path().join("ready.json")) {
                return serde_json::from_slice(&text).expect("the file appears whole");
            }
            assert!(self.child.try_wait().expect("a child").is_none(), "it ended:\n{}", self.log());
            assert!(begun.elapsed() < PATIENCE, "never ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn signal(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("it lives");
    }

    async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("text")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(secret: &Path, ready: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-engine"));
    command.arg("--model").arg(Weights::Usual.path());
    command.arg("--secret-file").arg(secret).arg("--ready-file").arg(ready);
    command.args(["--instance", "e0", "--threads", "1", "--log", "shoal_engine=debug"]).args(more);
    command.stdout(Stdio::null());
    command
}

async fn generate(
    ready: &serde_json::Value,
    secret: &Path,
    max_tokens: u32,
) -> tonic::Streaming<shoal_wire::rpc::GenerateEvent> {
    let address = format!("http://{}", ready["grpc"].as_str().expect("an address"));
    let mut client = EngineClient::connect(address).await.expect("it accepts");
    let secret = FleetSecret::read(secret).expect("a secret");
    let ask = request("a", prompt(1, 70), greedy(max_tokens), &[]);
    client.generate(secret.sign(Request::new(ask))).await.expect("it runs").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_serves_drains_on_sigterm_and_exits_with_0() {
    let mut process = Process::start(&["--metrics-listen", "127.0.0.1:0"]);
    let ready = process.ready().await;
    assert_eq!(
        (ready["instance"].as_str(), ready["pid"].as_u64()),
        (Some("e0"), Some(process.child.id().into()))
    );
    let mut stream = generate(&ready, &process.folder.path().join("secret"), 500).await;
    first_token(&mut stream).await;
    let metrics = get(ready["metrics"].as_str().expect("an address"), "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("shoal_engine_kv_pages"), "{metrics}");
    process.signal();
    let mut events = 0;
    while stream.message().await.expect("a drained stream runs to its end").is_some() {
        events += 1;
    }
    assert!(events > 0);
    assert!(process.ended().await.success());
    let log = process.log();
    assert!(log.contains("drained") && !log.contains(SECRET), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_draining_process_at_once() {
    let mut process = Process::start(&[]);
    let ready = process.ready().await;
    let mut stream = generate(&ready, &process.folder.path().join("secret"), 3900).await;
    first_token(&mut stream).await;
    process.signal();
    process.signal();
    // The kernel merges equal signals that wait; another one is sent until the process is gone.
    let begun = Instant::now();
    while process.child.try_wait().expect("a child").is_none() && begun.elapsed() < PATIENCE {
        process.signal();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(process.ended().await.success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_process_that_cannot_serve_says_why_and_exits() {
    let folder = tempfile::tempdir().expect("a folder");
    let (secret, ready) = (folder.path().join("secret"), folder.path().join("ready.json"));
    std::fs::write(&secret, "short").expect("written");
    let output = command(&secret, &ready, &[]).output().expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && log.contains("32 to 4096"), "{log}");
    std::fs::write(&secret, SECRET).expect("written");
    let output = command(&secret, &ready, &["--kv-memory", "1KiB"]).output().expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && log.contains("kv memory"), "{log}");
    assert!(!ready.exists());
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it accepts");
    let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    answer
}
