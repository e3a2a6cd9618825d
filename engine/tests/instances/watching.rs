//! The state stream.

use std::time::Instant;

use shoal_engine::scheduler::Role;
use shoal_wire::rpc::watch_event::Event;
use shoal_wire::rpc::{Role as WireRole, SetRoleRequest, WatchEvent, WatchRequest};
use shoal_wire::watch::SequenceCheck;
use tonic::Streaming;

use crate::fleet::{Engine, PATIENCE, greedy, prompt, request, run, signed};

struct Watcher {
    stream: Streaming<WatchEvent>,
    sequence: SequenceCheck,
}

impl Watcher {
    async fn start(engine: &Engine) -> (Self, Vec<bytes::Bytes>) {
        let stream = engine.client().await.watch(signed(WatchRequest {})).await.expect("it answers");
        let mut watcher = Self { stream: stream.into_inner(), sequence: SequenceCheck::default() };
        let Event::Snapshot(snapshot) = watcher.next().await else { panic!("a snapshot comes first") };
        let state = snapshot.state.expect("a state");
        assert_eq!(Some(state.incarnation), snapshot.hello.map(|hello| hello.incarnation));
        (watcher, snapshot.pages)
    }

    async fn next(&mut self) -> Event {
        let message = tokio::time::timeout(PATIENCE, self.stream.message()).await;
        let event = message.expect("in time").expect("the stream goes on").expect("a message");
        assert!(self.sequence.follows(event.seq), "a gap before {}", event.seq);
        event.event.expect("an event")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_the_cached_pages_come_and_a_later_one_finds_them_in_its_snapshot() {
    let engine = Engine::start("e", Role::Mixed).await;
    let (mut watcher, pages) = Watcher::start(&engine).await;
    assert!(pages.is_empty());
    run(&engine, request("a", prompt(1, 200), greedy(2), &[])).await.expect("it runs");
    let mut stored = Vec::new();
    while stored.len() < 3 {
        if let Event::KvStored(event) = watcher.next().await {
            stored.extend(event.pages);
        }
    }
    assert!(stored.iter().all(|key| key.len() == 16));
    let (_, mut snapshot) = Watcher::start(&engine).await;
    snapshot.sort();
    stored.sort();
    assert_eq!(snapshot, stored);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_change_is_pushed_and_an_idle_engine_still_speaks() {
    let engine = Engine::start("e", Role::Mixed).await;
    let (mut watcher, _) = Watcher::start(&engine).await;
    let set = SetRoleRequest { role: WireRole::Decode.into(), epoch: 3 };
    let begun = Instant::now();
    engine.client().await.set_role(signed(set)).await.expect("accepted");
    loop {
        if let Event::State(state) = watcher.next().await
            && state.role() == WireRole::Decode
        {
            assert_eq!(state.epoch, 3);
            break;
        }
    }
    assert!(begun.elapsed().as_millis() < 900, "pushed, not waited for: {:?}", begun.elapsed());
    let begun = Instant::now();
    let Event::State(_) = watcher.next().await else { panic!("only states while idle") };
    assert!(begun.elapsed().as_millis() < 2500, "{:?}", begun.elapsed());
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_do_not_keep_an_engine_from_ending() {
    let engine = Engine::start("e", Role::Mixed).await;
    let (mut watcher, _) = Watcher::start(&engine).await;
    let begun = Instant::now();
    engine.stop().await;
    assert!(begun.elapsed().as_secs() < 2);
    while let Ok(Some(_)) = watcher.stream.message().await {}
}
