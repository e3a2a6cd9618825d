//! `shoal up` and what befalls it, with real processes and a real model.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod fleet;

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    process::Stdio,
};

use fleet::{Fleet, ended_by_itself, model, send, text};
use rustix::process::Signal;

#[test]
fn a_fleet_serves_and_ctrl_c_lets_a_running_answer_finish_and_leaves_nothing() {
    let Some(model) = model() else { return };
    let mut fleet = Fleet::serving(&model);
    let endpoint = format!("Endpoint: http://127.0.0.1:{}/v1", fleet.port);
    fleet.wait_until("it says where", |fleet| fleet.said().contains(&endpoint));
    let answer = fleet.chat();
    assert!(answer.status.success(), "{}", text(&answer.stderr));
    assert!(text(&answer.stdout).contains("answer 8 tokens"), "{}", text(&answer.stdout));

    let mut long =
        fleet.command(&["chat", "-m", "Tell me a long story.", "--max-tokens", "150", "-t", "0", "--stats"]);
    let mut long = long.stdout(Stdio::piped()).spawn().unwrap();
    let mut story = BufReader::new(long.stdout.take().unwrap());
    let mut first = [0u8; 1];
    story.read_exact(&mut first).unwrap();
    fleet.signal_up(Signal::INT);
    let rest: Vec<String> = story.lines().map(Result::unwrap).collect();
    assert!(long.wait().unwrap().success(), "the answer was cut: {rest:?}");
    assert!(rest.last().unwrap().contains("answer"), "it ended with its statistics: {rest:?}");

    assert_eq!(ended_by_itself(fleet.wait_for_end()), Some(0), "{}", fleet.said());
    assert_eq!(fleet.processes(), Vec::<i32>::new());
    assert!(!fleet.dir().join("secret").exists());
    assert_eq!(std::fs::read_dir(fleet.dir().join("instances")).unwrap().count(), 0);
    assert_eq!(
        fleet.condition("Ready"),
        ("False".to_owned(), "no `shoal up` runs for this cluster".to_owned())
    );
}

#[test]
fn a_second_ctrl_c_ends_everything_at_once() {
    let Some(model) = model() else { return };
    let mut fleet = Fleet::serving(&model);
    // A stopped gateway would keep the first Ctrl-C waiting.
    send(fleet.pid("gateway").unwrap(), Signal::STOP);
    send(fleet.pid("chat-1").unwrap(), Signal::STOP);
    fleet.signal_up(Signal::INT);
    fleet.wait_until("it is stopping", |fleet| fleet.said().contains("stopping"));
    fleet.signal_up(Signal::INT);
    let code = ended_by_itself(fleet.wait_for_end());
    assert!(code == Some(130) || code == Some(0), "{code:?}");
    fleet.wait_until("nothing is left", |fleet| fleet.processes().is_empty());
}

#[test]
fn a_killed_host_leaves_a_fleet_that_serves_and_the_next_one_takes_it_over() {
    let Some(model) = model() else { return };
    let mut fleet = Fleet::serving(&model);
    let pids = ["gateway", "chat-0", "chat-1"].map(|name| fleet.pid(name).unwrap());
    fleet.kill_up();
    assert_eq!(fleet.condition("Ready").0, "Unknown", "nobody watches it");
    assert!(fleet.chat().status.success(), "it serves on");

    let before = fleet.published();
    fleet.start(1, 1);
    fleet.wait_until("it is watched again", |fleet| fleet.said().matches("Endpoint: ").count() == 2);
    assert_eq!(fleet.published(), before, "a new host alone changes nothing");
    assert!(fleet.is_complete("1/1", "1/1"));
    assert_eq!(
        ["gateway", "chat-0", "chat-1"].map(|name| fleet.pid(name).unwrap()),
        pids,
        "no process was restarted"
    );
    assert!(fleet.said().contains(&format!("took over chat-1 (process {})", pids[2])), "{}", fleet.said());
    assert!(fleet.chat().status.success());
}

#[test]
fn a_process_that_no_record_tells_of_is_ended_by_the_next_host() {
    let Some(model) = model() else { return };
    let mut fleet = Fleet::serving(&model);
    let orphan = fleet.pid("chat-1").unwrap();
    fleet.kill_up();
    std::fs::remove_file(fleet.dir().join("instances/chat-1.json")).unwrap();
    fleet.start(1, 1);
    fleet.wait_until("another took its place", |fleet| {
        fleet.pid("chat-1").is_some_and(|pid| pid != orphan) && fleet.is_complete("1/1", "1/1")
    });
    assert!(fleet.said().contains(&format!("ended process {orphan}")), "{}", fleet.said());
    assert!(!fleet.processes().contains(&orphan));
    assert_eq!(fleet.processes().len(), 3);
}

#[test]
fn killed_engines_and_a_killed_gateway_are_replaced() {
    let Some(model) = model() else { return };
    let fleet = Fleet::serving(&model);
    for name in ["chat-1", "chat-0", "gateway"] {
        let old = fleet.pid(name).unwrap();
        send(old, Signal::KILL);
        fleet.wait_until("it was replaced", |fleet| {
            fleet.pid(name).is_some_and(|pid| pid != old) && fleet.is_complete("1/1", "1/1")
        });
        assert!(
            fleet.said().contains(&format!("replace {name}: crashed (signal 9), crash 1 in a row")),
            "{}",
            fleet.said()
        );
    }
    assert!(fleet.chat().status.success());
    assert_eq!(fleet.processes().len(), 3);
}

#[test]
fn an_engine_that_is_silent_for_ten_seconds_is_reported_and_serves_again_when_it_wakes() {
    let Some(model) = model() else { return };
    let fleet = Fleet::serving(&model);
    let pid = fleet.pid("chat-0").unwrap();
    send(pid, Signal::STOP);
    fleet.wait_until("it is reported", |fleet| {
        fleet.condition("Degraded") == ("True".to_owned(), "chat-0 does not answer".to_owned())
    });
    assert_eq!(fleet.condition("Ready").0, "True", "the decode instance reads prompts itself");
    assert!(fleet.chat().status.success());
    send(pid, Signal::CONT);
    fleet.wait_until("it is back", |fleet| fleet.is_complete("1/1", "1/1"));
    assert_eq!(fleet.pid("chat-0"), Some(pid), "it was not replaced");
}

#[test]
fn apply_from_a_second_terminal_scales_and_delete_ends_it_all() {
    let Some(model) = model() else { return };
    let mut fleet = Fleet::serving(&model);
    let decode = fleet.pid("chat-1");
    let applied = fleet.run(&["apply", "-f", fleet.manifest(0, 2).to_str().unwrap()]);
    assert_eq!(text(&applied.stdout), "servingcluster.shoal.dev/chat configured\n");
    fleet.wait_until("it is what was applied", |fleet| fleet.is_complete("0/0", "2/2"));
    assert_eq!(fleet.pid("chat-1"), decode, "what stays is not restarted");
    assert!(fleet.chat().status.success(), "decode instances read prompts themselves");
    let again = fleet.run(&["apply", "-f", fleet.manifest(0, 2).to_str().unwrap()]);
    assert_eq!(text(&again.stdout), "servingcluster.shoal.dev/chat unchanged\n");

    let deleted = fleet.run(&["delete", "chat"]);
    assert_eq!(text(&deleted.stdout), "servingcluster.shoal.dev/chat deleted\n");
    assert_eq!(ended_by_itself(fleet.wait_for_end()), Some(0), "{}", fleet.said());
    assert!(fleet.processes().is_empty() && !fleet.dir().exists());
    assert_eq!(fleet.run(&["get", "chat"]).status.code(), Some(3));
}

#[test]
fn a_second_host_and_a_taken_port_are_refused() {
    let Some(model) = model() else { return };
    let mut fleet = Fleet::serving(&model);
    let manifest = fleet.manifest(1, 1);
    let second = fleet.run(&["up", "-f", manifest.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(4));
    assert!(text(&second.stderr).contains("cluster \"chat\" is already up"), "{}", text(&second.stderr));
    assert!(fleet.chat().status.success(), "the first one is not disturbed");
    fleet.signal_up(Signal::INT);
    fleet.wait_for_end();

    let holder = TcpListener::bind(("127.0.0.1", fleet.port)).unwrap();
    let refused = fleet.run(&["up", "-f", manifest.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(4));
    let message = text(&refused.stderr);
    assert!(message.contains(&format!("port {} cannot be used", fleet.port)), "{message}");
    assert!(message.contains("spec.gateway.port"), "{message}");
    assert!(fleet.processes().is_empty());
    drop(holder);
}

#[test]
fn a_model_that_cannot_be_loaded_is_reported_with_the_engines_own_words() {
    let Some(_) = model() else { return };
    let mut fleet = Fleet::new("");
    let broken = fleet.folder.path().join("broken.gguf");
    std::fs::write(&broken, "this is no model").unwrap();
    broken.to_str().unwrap().clone_into(&mut fleet.model);
    fleet.start(0, 1);
    fleet.wait_until("it is reported", |fleet| {
        fleet.condition("Degraded").1.contains("chat-0 crashed (exit ")
    });
    assert!(fleet.condition("Degraded").1.contains("magic"), "{:?}", fleet.condition("Degraded"));
    assert_ne!(fleet.condition("Ready").0, "True");
    fleet.signal_up(Signal::INT);
    assert_eq!(ended_by_itself(fleet.wait_for_end()), Some(0), "{}", fleet.said());
    assert!(fleet.processes().is_empty());
}
