//! Files from real servers: one that misbehaves on order, and an S3 store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod servers;

use std::path::Path;

use servers::{Fault, FileServer, S3Server};
use sha2::{Digest as _, Sha256};
use shoal_fetch::{
    Class,
    fetch::{self, FetchError},
    progress::{Phase, report},
    source::Source,
    store::Store,
    wanted::{Checksum, Wanted},
};

/// Large enough for several reads and writes, and of no period that a wrong offset would hide behind.
fn content(length: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn sum(content: &[u8]) -> String {
    Checksum(Sha256::digest(content).into()).to_string()
}

fn anonymous() -> Source {
    Source::new(Store::new(None, "us-east-1", None), None).unwrap()
}

async fn bring(folder: &Path, wanted: &[Wanted], source: &Source) -> Result<(), FetchError> {
    let files = fetch::sizes(wanted, source).await?;
    fetch::room(folder, wanted, &files)?;
    fetch::fetch(folder, wanted, source, &files, 4).await?;
    assert_eq!(report(&files).phase, Phase::Done);
    assert_eq!(report(&files).bytes_done, report(&files).bytes_total);
    Ok(())
}

#[tokio::test]
async fn several_files_arrive_whole_and_a_second_run_asks_for_none_of_their_bytes() {
    let server =
        FileServer::start([("/m/a", content(3_000_000)), ("/m/b", content(10)), ("/m/c", vec![])]).await;
    let folder = tempfile::tempdir().unwrap();
    let wanted: Vec<Wanted> = ["a", "b", "c"].map(|name| server.wanted(name, &format!("/m/{name}"))).into();
    bring(folder.path(), &wanted, &anonymous()).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), content(3_000_000));
    assert_eq!(std::fs::read(folder.path().join("c")).unwrap(), b"");
    let sent = server.bytes_sent();
    bring(folder.path(), &wanted, &anonymous()).await.unwrap();
    // Lengths are asked for with a range of one byte.
    assert!(server.bytes_sent() - sent <= 2, "{} more bytes", server.bytes_sent() - sent);
}

#[tokio::test]
async fn a_connection_that_breaks_is_gone_on_with_where_it_stood() {
    let server = FileServer::start([("/a", content(2_000_000))]).await;
    server.fault("/a", [Fault::CutAfter(600_000), Fault::Status(503), Fault::CutAfter(600_000)]);
    let folder = tempfile::tempdir().unwrap();
    bring(folder.path(), &[server.wanted("a", "/a")], &anonymous()).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), content(2_000_000));
    // Some bytes are sent and not received before a cut; never a whole file twice.
    assert!(server.bytes_sent() < 3_000_000, "{}", server.bytes_sent());
    assert!(!folder.path().join("a.part").exists());
}

#[tokio::test]
async fn what_a_killed_process_left_is_used() {
    let server = FileServer::start([("/a", content(2_000_000))]).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.part"), &content(2_000_000)[..1_500_000]).unwrap();
    bring(folder.path(), &[server.wanted("a", "/a")], &anonymous()).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), content(2_000_000));
    assert_eq!(server.bytes_sent(), 500_001);
}

#[tokio::test]
async fn a_part_of_another_file_is_thrown_away_and_the_file_fetched_anew() {
    let server = FileServer::start([("/a", content(200_000))]).await;
    for left in [vec![0; 1_000], vec![0; 200_000], vec![0; 300_000]] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.part"), left).unwrap();
        bring(folder.path(), &[server.wanted("a", "/a")], &anonymous()).await.unwrap();
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), content(200_000));
    }
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let server = FileServer::start([("/a", content(100_000))]).await;
    server.ignore_ranges();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.part"), &content(100_000)[..50_000]).unwrap();
    bring(folder.path(), &[server.wanted("a", "/a")], &anonymous()).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), content(100_000));
}

#[tokio::test]
async fn another_content_than_wanted_never_gets_the_name() {
    let server = FileServer::start([("/a", content(1_000))]).await;
    let folder = tempfile::tempdir().unwrap();
    let wanted = Wanted::new("a", &sum(b"something else"), &server.url("/a")).unwrap();
    let error = bring(folder.path(), &[wanted], &anonymous()).await.unwrap_err();
    assert_eq!(error.class(), Class::Invalid);
    assert!(error.to_string().contains("has SHA-256 "), "{error}");
    assert!(!folder.path().join("a").exists());
}

#[tokio::test]
async fn a_source_that_is_longer_than_it_said_ends_it_unless_it_is_what_was_wanted() {
    let server = FileServer::start([("/a", content(1_000))]).await;
    server.claim_length("/a", 500);
    let folder = tempfile::tempdir().unwrap();
    let wanted = Wanted::new("a", &sum(b"something else"), &server.url("/a")).unwrap();
    let (wanted, source) = ([wanted], anonymous());
    let bringing = bring(folder.path(), &wanted, &source);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), bringing).await.expect("it ends");
    assert_eq!(ended.unwrap_err().class(), Class::Invalid);
    let grown = tempfile::tempdir().unwrap();
    bring(grown.path(), &[server.wanted("a", "/a")], &source).await.unwrap();
    assert_eq!(std::fs::read(grown.path().join("a")).unwrap(), content(1_000));
}

#[tokio::test]
async fn a_file_of_that_name_and_another_content_is_left_alone() {
    let server = FileServer::start([("/a", content(1_000))]).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "mine").unwrap();
    let error = bring(folder.path(), &[server.wanted("a", "/a")], &anonymous()).await.unwrap_err();
    assert_eq!(error.class(), Class::Invalid);
    assert!(error.to_string().contains("remove it, or give this file another name"), "{error}");
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"mine");
}

#[tokio::test]
async fn a_wrong_address_ends_it_before_anything_is_fetched_and_names_no_signature() {
    let server = FileServer::start([("/a", content(1_000))]).await;
    let folder = tempfile::tempdir().unwrap();
    let missing = Wanted::new("b", &sum(b""), &server.url("/b?sig=SECRET")).unwrap();
    let error = bring(folder.path(), &[server.wanted("a", "/a"), missing], &anonymous()).await.unwrap_err();
    assert_eq!(error.class(), Class::Invalid);
    let told = error.to_string();
    assert!(told.contains("404") && told.contains("there is no such file"), "{told}");
    assert!(!told.contains("SECRET"), "{told}");
    assert!(!folder.path().join("a").exists());
}

#[tokio::test]
async fn more_than_the_volume_holds_is_refused_at_once() {
    let server = FileServer::start([("/a", content(10))]).await;
    server.claim_length("/a", u64::MAX / 4);
    let folder = tempfile::tempdir().unwrap();
    let error = bring(folder.path(), &[server.wanted("a", "/a")], &anonymous()).await.unwrap_err();
    assert!(error.to_string().contains("more are needed"), "{error}");
}

#[tokio::test]
async fn pods_that_share_a_folder_fetch_a_file_once() {
    let server = FileServer::start([("/a", content(4_000_000))]).await;
    let folder = tempfile::tempdir().unwrap();
    let (wanted, source) = ([server.wanted("a", "/a")], anonymous());
    let all = (0..4).map(|_| bring(folder.path(), &wanted, &source));
    for outcome in futures::future::join_all(all).await {
        outcome.unwrap();
    }
    assert_eq!(server.bytes_sent(), 4_000_000 + 4);
}

#[tokio::test]
async fn an_s3_store_gives_to_whoever_signs_right() {
    let store = S3Server::start("bucket", "models/a file.gguf", &content(1_500_000)).await;
    let folder = tempfile::tempdir().unwrap();
    let wanted =
        [Wanted::new("a.gguf", &sum(&content(1_500_000)), "s3://bucket/models/a%20file.gguf").unwrap()];
    let source = |secret| Source::new(store.store(secret), None).unwrap();
    let refused = bring(folder.path(), &wanted, &source("wrong")).await.unwrap_err();
    assert_eq!(refused.class(), Class::Invalid);
    assert!(refused.to_string().contains("403"), "{refused}");
    std::fs::write(folder.path().join("a.gguf.part"), &content(1_500_000)[..700_000]).unwrap();
    bring(folder.path(), &wanted, &source(S3Server::SECRET)).await.unwrap();
    assert_eq!(std::fs::read(folder.path().join("a.gguf")).unwrap(), content(1_500_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_killed_midway_goes_on_and_its_progress_can_be_watched() {
    let server = FileServer::start([("/a", content(3_000_000))]).await;
    // The first body stops without an end, so that the process hangs on it when it is killed.
    server.fault("/a", [Fault::StallAfter(1_200_000)]);
    let folder = tempfile::tempdir().unwrap();
    let port = servers::free_port();
    let (url, checksum) = (server.url("/a"), sum(&content(3_000_000)));
    let start = || {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_shoal-fetch"))
            .args(["--listen", &format!("127.0.0.1:{port}"), "--file", "a", &checksum, &url, "--folder"])
            .arg(folder.path())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    };
    let mut first = start();
    servers::until("the first megabyte is shown", || async {
        let progress = servers::get_json(&format!("http://127.0.0.1:{port}/progress")).await;
        progress.is_some_and(|progress| {
            progress["phase"] == "Downloading"
                && progress["bytesDone"].as_u64() >= Some(1_000_000)
                && progress["bytesTotal"] == 3_000_000
        })
    })
    .await;
    first.kill().await.unwrap();
    let sent = server.bytes_sent();
    let ended = start().wait().await.unwrap();
    assert!(ended.success());
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), content(3_000_000));
    assert!(server.bytes_sent() - sent <= 2_000_001, "{}", server.bytes_sent() - sent);
}

#[tokio::test]
async fn a_usage_error_says_what_is_allowed() {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_shoal-fetch"))
        .args(["--folder", "/nowhere", "--file", "a", "00", "https://host/a"])
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("must be a SHA-256 of 64 hex digits"), "{told}");
}
