//! What the command line refuses, and how it says so. Needs neither engine nor model.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{fs, path::Path, process::Command};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn shoal(state: &Path, arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_shoal"))
        .args(arguments)
        .env("SHOAL_STATE_DIR", state)
        .env_remove("SHOAL_ENGINE")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

const MANIFEST: &str = "apiVersion: shoal.dev/v1alpha1
kind: ServingCluster
metadata: { name: chat }
spec:
  model: { name: smollm2, source: { path: /models/absent.gguf } }
";

#[test]
fn a_wrong_manifest_is_refused_with_every_reason_and_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("bad.yaml");
    fs::write(
        &manifest,
        format!("{MANIFEST}  gateway: {{ port: 0 }}\n  engine: {{ threds: 2, device: cuda }}\n"),
    )
    .unwrap();
    for command in ["apply", "up"] {
        let ran = shoal(folder.path(), &[command, "-f", manifest.to_str().unwrap()]);
        assert_eq!(ran.code, Some(2));
        let expected = format!(
            "error: {} is refused:\n  spec.engine.threds: is not a known field; allowed here: chunk, device, \
             image, imagePullPolicy, kvMemory, maxBatch, maxContext, podTemplate, threads\n  spec.engine.device: must be one of: cpu; not \"cuda\"\n",
            manifest.display()
        );
        assert_eq!(ran.err, expected);
    }
    assert!(!folder.path().join("clusters").exists(), "nothing was stored");
}

#[test]
fn a_manifest_or_model_that_is_not_there_is_refused_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let ran = shoal(folder.path(), &["apply", "-f", "/nowhere.yaml"]);
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (Some(2), "error: cannot read /nowhere.yaml: No such file or directory (os error 2)\n")
    );
}

#[test]
fn a_relative_model_path_is_taken_from_the_manifests_folder() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("here");
    fs::create_dir(&here).unwrap();
    let manifest = here.join("cluster.yaml");
    for (written, stored) in [("models/tiny", "here/models/tiny.gguf"), ("./a/../../tiny", "tiny.gguf")] {
        fs::write(&manifest, MANIFEST.replace("/models/absent", written)).unwrap();
        let ran = shoal(folder.path(), &["apply", "-f", manifest.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let shown = shoal(folder.path(), &["get", "chat", "-o", "yaml"]).out;
        let expected = folder.path().join(stored);
        assert!(shown.contains(&format!("path: {}\n", expected.display())), "{shown}");
    }
}

#[test]
fn what_is_applied_can_be_read_in_every_form_and_applied_again() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("cluster.yaml");
    fs::write(&manifest, MANIFEST).unwrap();
    let path = manifest.to_str().unwrap();
    assert!(
        shoal(folder.path(), &["apply", "-f", path])
            .out
            .starts_with("servingcluster.shoal.dev/chat created\n")
    );
    let table = shoal(folder.path(), &["get"]).out;
    assert!(table.starts_with("NAME  READY    PREFILL  DECODE  MODEL    STATUS   AGE\n"), "{table}");
    assert!(table.contains("chat  Unknown  0/1      0/1     smollm2  Stopped  "), "{table}");
    fs::write(&manifest, shoal(folder.path(), &["get", "chat", "-o", "yaml"]).out).unwrap();
    assert!(
        shoal(folder.path(), &["apply", "-f", path])
            .out
            .starts_with("servingcluster.shoal.dev/chat unchanged\n")
    );
    let deleted = shoal(folder.path(), &["delete", "chat"]);
    assert_eq!(deleted.out, "servingcluster.shoal.dev/chat deleted\n");
    assert!(shoal(folder.path(), &["get"]).out.starts_with("No cluster is known here"));
}

#[test]
fn what_is_not_there_is_code_3_and_says_what_is() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in
        [&["get", "chat"][..], &["describe"], &["delete", "chat"], &["logs"], &["chat", "-m", "hi"]]
    {
        let ran = shoal(folder.path(), arguments);
        assert_eq!(ran.code, Some(3), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains("known here"), "{arguments:?}: {}", ran.err);
    }
    let ran = shoal(folder.path(), &["model", "pull", "gpt"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.contains("known: smollm2"), "{}", ran.err);
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let folder = tempfile::tempdir().unwrap();
    let commands = [
        vec![],
        vec!["up"],
        vec!["apply"],
        vec!["get"],
        vec!["describe"],
        vec!["delete"],
        vec!["logs"],
        vec!["chat"],
        vec!["bench"],
        vec!["model"],
    ];
    for command in commands {
        let ran = shoal(folder.path(), &[command.clone(), vec!["--help"]].concat());
        assert_eq!(ran.code, Some(0));
        assert!(ran.out.contains("Examples:\n  shoal "), "{command:?}: {}", ran.out);
    }
    assert!(shoal(folder.path(), &["--help"]).out.contains("Exit codes:"));
}

#[test]
fn a_server_that_is_not_there_is_named_and_is_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let ran = shoal(folder.path(), &["chat", "-m", "hi", "--endpoint", "http://127.0.0.1:9/v1"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("no answer from http://127.0.0.1:9/v1/models"), "{}", ran.err);
}
