//! What the command line refuses, and what it answers without an API server.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn plugin(kubeconfig: &Path, arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-shoal"))
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Of an API server that does not answer: nothing listens on the port.
fn kubeconfig(folder: &Path) -> PathBuf {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let path = folder.join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         clusters: [{{name: here, cluster: {{server: 'http://{address}'}}}}]\n\
         users: [{{name: me, user: {{}}}}]\n\
         contexts: [{{name: here, context: {{cluster: here, user: me, namespace: team}}}}]\n"
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn wrong_arguments_are_refused_with_code_2_and_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let config = kubeconfig(folder.path());
    for (arguments, said) in [
        (&["nonsense"][..], "unrecognized subcommand 'nonsense'"),
        (&["status", "chat", "-A"], "cannot be used with"),
        (&["status", "-o", "wide"], "[possible values: table, json, yaml]"),
        (&["top", "--interval", "0"], "0 is not in 1..=300"),
        (&["logs", "--since", "soon"], "for example 30s, 10m, 2h"),
        (&["logs", "--role", "mixed"], "[possible values: prefill, decode]"),
        (&["logs", "--gateway", "--role", "decode"], "cannot be used with"),
        (&["logs", "-f", "--previous"], "cannot be used with"),
        (&["logs", "--tail", "-1"], "-1"),
        (&["events", "--types", "Bad"], "[possible values: Normal, Warning]"),
        (&["report", "--log-size", "0"], "0 is not in 1..=16384"),
        (&["status", "--context", "elsewhere"], "--context elsewhere"),
        (&["status", "--kubeconfig", "/nowhere"], "--kubeconfig /nowhere"),
    ] {
        let ran = plugin(&config, arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{arguments:?}: {}", ran.err);
        assert!(ran.out.is_empty(), "{arguments:?}: {}", ran.out);
    }
}

#[test]
fn an_api_server_that_does_not_answer_is_code_3_in_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let config = kubeconfig(folder.path());
    let archive = folder.path().join("report.tar.gz");
    for arguments in [
        &["status"][..],
        &["status", "chat"],
        &["top", "--once"],
        &["chat", "-m", "hello"],
        &["logs"],
        &["events"],
        &["doctor"],
        &["report", "chat", "-o", archive.to_str().unwrap()],
        &["version"],
    ] {
        let ran = plugin(&config, arguments);
        assert_eq!(ran.code, Some(3), "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(ran.err.starts_with("error: "), "{arguments:?}: {}", ran.err);
    }
    assert!(!archive.exists(), "no empty archive is left");
}

#[test]
fn the_clients_version_needs_no_api_server() {
    let ran = plugin(Path::new("/nowhere"), &["version", "--client"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(ran.out, format!("kubectl-shoal  {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_of_every_command_has_examples_that_run_as_a_kubectl_plugin() {
    let commands = ["status", "top", "chat", "logs", "events", "doctor", "report", "version", "completion"];
    for command in commands {
        let ran = plugin(Path::new("/nowhere"), &[command, "--help"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.contains(&format!("Usage: kubectl shoal {command}")), "{}", ran.out);
        assert!(ran.out.contains(&format!("Examples:\n  kubectl shoal {command}")), "{}", ran.out);
    }
    let help = plugin(Path::new("/nowhere"), &["--help"]).out;
    assert!(help.contains("Exit codes:\n  0  done"), "{help}");
}

#[test]
fn completion_offers_commands_flags_and_values_as_kubectl_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = kubeconfig(folder.path());
    let offered = |words: &[&str]| plugin(&config, &[&["__complete", "--"], words].concat()).out;
    assert_eq!(offered(&["re"]), "report\n:4\n");
    assert_eq!(offered(&["logs", "--ro"]), "--role\n:4\n");
    assert_eq!(offered(&["top", "--names"]), "--namespace\n:4\n");
    assert_eq!(offered(&["completion", "f"]), "fish\n:4\n");
    assert_eq!(offered(&["status", ""]), ":4\n", "names come from the API server, which is away");
    let script = plugin(&config, &["completion", "kubectl"]).out;
    assert_eq!(script, "#!/bin/sh\nexec kubectl-shoal __complete -- \"$@\"\n");
    assert!(plugin(&config, &["completion", "bash"]).out.contains("complete -F"));
}
