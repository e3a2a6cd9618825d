//! Engines that die, stall, refuse and come back: what the client of a stream notices of it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use shoal_wire::rpc::Role;
use tonic::Status;

use crate::answers::completion;
use crate::fake::{Fake, text};
use crate::world::{Setup, World, placements, until};

const TOKENS: u64 = 60;

fn long(stream: bool, n: u32) -> serde_json::Value {
    completion(
        &json!({"max_tokens": TOKENS, "stream": stream, "n": n, "stream_options": if stream { json!({"include_usage": true}) } else { json!(null) }}),
    )
}

#[tokio::test]
async fn a_stream_goes_on_without_gap_or_duplicate_when_its_engine_dies() {
    for n in [1, 3] {
        let (a, b) = (Fake::start("a", Role::Mixed), Fake::start("b", Role::Mixed));
        for engine in [&a, &b] {
            engine.pace(2);
        }
        let world = World::new(&[("a", &a), ("b", &b)]).await;
        let mut stream = world.stream("/v1/completions", &long(true, n)).await;
        let first = stream.next().await.expect("an event");
        let dying = if a.calls() == 1 { &a } else { &b };
        until("some tokens", || dying.script.tokens_sent.load(Ordering::Relaxed) > 5).await;
        dying.kill();
        let mut events = stream.rest().await;
        events.0.insert(0, first);
        assert!(events.is_done(), "{:?}", events.0.last());
        for choice in 0..n {
            assert_eq!(events.text(choice.into()), text(7, choice, TOKENS), "choice {choice} of {n}");
        }
        let last = events.chunks().pop().expect("usage");
        assert_eq!(
            (&last["shoal"]["replays"], &last["usage"]["completion_tokens"]),
            (&json!(1), &json!(TOKENS * u64::from(n)))
        );
        assert_eq!(world.metrics.replays.with_label_values(&["lost"]).get(), 1);
    }
}

#[tokio::test]
async fn a_request_waits_for_the_replacement_of_the_only_engine() {
    let engine = Fake::start("a", Role::Mixed);
    engine.pace(2);
    let world = World::new(&[("a", &engine)]).await;
    let mut stream = world.stream("/v1/completions", &long(true, 1)).await;
    let first = stream.next().await.expect("an event");
    engine.kill();
    until("the gateway noticed", || world.fleet.instances()[0].live().is_none()).await;
    let replacement = Fake::start("a", Role::Mixed);
    world.fleet.set(placements(&[("a", &replacement)]));
    let mut events = stream.rest().await;
    events.0.insert(0, first);
    assert!(events.is_done());
    assert_eq!(events.text(0), text(7, 0, TOKENS));
}

#[tokio::test]
async fn a_stalled_engine_loses_its_stream_to_another_and_is_told_to_stop() {
    let (a, b) = (Fake::start("a", Role::Mixed), Fake::start("b", Role::Mixed));
    for engine in [&a, &b] {
        engine.pace(2);
    }
    let world = World::new(&[("a", &a), ("b", &b)]).await;
    let mut stream = world.stream("/v1/completions", &long(true, 1)).await;
    let first = stream.next().await.expect("an event");
    let stalled = if a.calls() == 1 { &a } else { &b };
    stalled.stop(true);
    let mut events = stream.rest().await;
    events.0.insert(0, first);
    assert_eq!(events.text(0), text(7, 0, TOKENS));
    assert!(events.is_done());
    assert_eq!(world.metrics.replays.with_label_values(&["stalled"]).get(), 1);
    until("the abort arrived", || stalled.script.aborts.load(Ordering::Relaxed) == 1).await;
}

#[tokio::test]
async fn a_stalled_engine_that_resumes_keeps_its_stream_when_nobody_else_is_there() {
    let engine = Fake::start("a", Role::Mixed);
    engine.pace(2);
    let world = World::new(&[("a", &engine)]).await;
    let mut stream = world.stream("/v1/completions", &long(true, 1)).await;
    let first = stream.next().await.expect("an event");
    engine.stop(true);
    let silent = || world.fleet.instances()[0].silence(Instant::now()) > Duration::from_millis(1300);
    until("the stall is noticed", silent).await;
    engine.stop(false);
    let mut events = stream.rest().await;
    events.0.insert(0, first);
    assert_eq!(events.text(0), text(7, 0, TOKENS));
    assert_eq!((engine.calls(), events.is_done()), (1, true));
}

#[tokio::test]
async fn a_draining_engine_hands_its_stream_on() {
    let (a, b) = (Fake::start("a", Role::Mixed), Fake::start("b", Role::Mixed));
    a.script.drains_after.store(10, Ordering::Relaxed);
    let world = World::new(&[("a", &a)]).await;
    world.fleet.set(placements(&[("a", &a), ("b", &b)]));
    // Only `a` is known when the request arrives or `b` is too; either way the text is one.
    for _ in 0..4 {
        let answer = world.post("/v1/completions", &long(false, 1)).await.json();
        assert_eq!(answer["choices"][0]["text"], text(7, 0, TOKENS));
    }
}

#[tokio::test]
async fn a_request_that_kills_two_engines_is_not_given_to_a_third() {
    let engines =
        [Fake::start("a", Role::Mixed), Fake::start("b", Role::Mixed), Fake::start("c", Role::Mixed)];
    for engine in &engines {
        engine.script.dies_after.store(3, Ordering::Relaxed);
    }
    let [a, b, c] = &engines;
    let world = World::new(&[("a", a), ("b", b), ("c", c)]).await;
    let events = world.stream("/v1/completions", &long(true, 1)).await.rest().await;
    let error = events.error().expect("a typed error");
    assert_eq!(error["error"]["code"], "internal_error");
    assert_eq!(engines.iter().map(Fake::calls).sum::<u32>(), 2);
    assert_eq!(world.metrics.poisoned.get(), 1);
    assert_eq!(events.text(0), text(7, 0, 6), "what came before the error is right");
}

#[tokio::test]
async fn refusals_are_routed_around_without_an_error() {
    let (a, b) = (Fake::start("a", Role::Mixed), Fake::start("b", Role::Mixed));
    let world = World::new(&[("a", &a), ("b", &b)]).await;
    for status in [
        Status::resource_exhausted("the queue is full"),
        Status::failed_precondition("my role is prefill"),
        Status::unavailable("stopping"),
        Status::internal("a bug"),
    ] {
        a.refuse(Some(status));
        for _ in 0..4 {
            assert_eq!(world.post("/v1/completions", &completion(&json!({}))).await.status, 200);
        }
    }
    assert!(a.calls() > 0 && b.calls() == 16, "{} {}", a.calls(), b.calls());
}

#[tokio::test]
async fn full_queues_everywhere_are_a_429_at_once() {
    let engine = Fake::start("a", Role::Mixed);
    engine.refuse(Some(Status::resource_exhausted("the queue is full")));
    let world = World::new(&[("a", &engine)]).await;
    let begun = Instant::now();
    let reply = world.post("/v1/completions", &completion(&json!({}))).await;
    assert_eq!((reply.status, reply.headers["retry-after"].to_str().ok()), (429, Some("1")));
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_failing_engine_is_left_alone_by_its_breaker() {
    let (bad, good) = (Fake::start("bad", Role::Mixed), Fake::start("good", Role::Mixed));
    bad.refuse(Some(Status::internal("a bug")));
    let world = World::new(&[("bad", &bad), ("good", &good)]).await;
    for _ in 0..40 {
        assert_eq!(world.post("/v1/completions", &completion(&json!({}))).await.status, 200);
    }
    assert!((3..=5).contains(&bad.calls()), "three calls open it; {} were made", bad.calls());
    let metrics = world.get("/metrics").await;
    assert!(
        metrics.text().contains(r#"shoal_gateway_breaker_state{instance="good"} 0"#),
        "{}",
        metrics.text()
    );
    assert!(
        !metrics.text().contains(r#"shoal_gateway_breaker_state{instance="bad"} 0"#),
        "{}",
        metrics.text()
    );
    bad.refuse(None);
    let all_served = || bad.calls() > 6;
    let asked = async {
        while !all_served() {
            assert_eq!(world.post("/v1/completions", &completion(&json!({}))).await.status, 200);
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.expect("a probe closes it again");
}

#[tokio::test]
async fn an_engine_that_always_fails_costs_a_bounded_number_of_retries() {
    let engine = Fake::start("bad", Role::Mixed);
    engine.refuse(Some(Status::internal("a bug")));
    let world = World::new(&[("bad", &engine)]).await;
    for _ in 0..30 {
        assert_eq!(world.post("/v1/completions", &completion(&json!({}))).await.status, 503);
    }
    assert!(engine.calls() < 30 + 13, "{} calls for 30 requests", engine.calls());
}

#[tokio::test]
async fn the_engines_word_on_a_bad_request_is_a_400_and_not_retried() {
    let engine = Fake::start("a", Role::Mixed);
    engine.refuse(Some(Status::invalid_argument("`tokens` need 99 pages; the pool has 10")));
    let world = World::new(&[("a", &engine)]).await;
    let reply = world.post("/v1/completions", &completion(&json!({}))).await;
    assert_eq!((reply.error().0, engine.calls()), (400, 1));
    assert!(reply.text().contains("99 pages"));
}

#[tokio::test]
async fn with_nobody_to_decode_new_requests_get_a_503_and_flips_are_followed() {
    let engine = Fake::start("a", Role::Prefill);
    let world = World::new(&[("a", &engine)]).await;
    let reply = world.post("/v1/completions", &completion(&json!({}))).await;
    assert_eq!((reply.status, reply.headers.contains_key("retry-after")), (503, true));
    engine.state.send_modify(|state| state.0 = Role::Decode);
    until("the flip is known", || world.fleet.has_decoder()).await;
    assert_eq!(world.post("/v1/completions", &completion(&json!({}))).await.status, 200);
    engine.state.send_modify(|state| state.1 = true);
    until("the drain is known", || !world.fleet.has_decoder()).await;
    assert_eq!(world.get("/ready").await.status, 503);
}

#[tokio::test]
async fn a_request_past_its_time_ends_as_a_504_and_the_work_stops() {
    let engine = Fake::start("a", Role::Mixed);
    engine.stop(true);
    engine.stop(false);
    engine.pace(50);
    let world = World::with(
        &[("a", &engine)],
        Setup { request_timeout: Duration::from_millis(300), ..Setup::default() },
    )
    .await;
    let reply = world.post("/v1/completions", &long(false, 1)).await;
    assert_eq!(reply.error(), (504, None, Some("timeout".into())));
    until("the engine stopped", || engine.script.streams.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn load_is_spread_over_engines_and_prefill_goes_to_the_idle_one() {
    let (a, b) = (Fake::start("a", Role::Decode), Fake::start("b", Role::Decode));
    let (busy, idle) = (Fake::start("busy", Role::Prefill), Fake::start("idle", Role::Prefill));
    for (engine, queued) in [(&busy, 10_000), (&idle, 0)] {
        engine.state.send_modify(|state| {
            state.2.prefill_rate = 1000.0;
            state.2.queued_prefill_tokens = queued;
        });
    }
    let world = World::new(&[("a", &a), ("b", &b), ("busy", &busy), ("idle", &idle)]).await;
    let known = |name: &str| {
        world
            .fleet
            .instances()
            .iter()
            .find(|i| i.name() == name)
            .and_then(|i| i.live())
            .map(|l| l.load().prefill_rate)
    };
    until("rates are known", || known("busy") > Some(0.0) && known("idle") > Some(0.0)).await;
    for _ in 0..20 {
        assert_eq!(world.post("/v1/completions", &completion(&json!({}))).await.status, 200);
    }
    let (a_requests, b_requests) = (a.script.requests.lock(), b.script.requests.lock());
    assert!(a_requests.len() >= 4 && b_requests.len() >= 4, "{} {}", a_requests.len(), b_requests.len());
    for request in a_requests.iter().chain(b_requests.iter()) {
        assert_eq!(request.prefill[0].instance, "idle");
    }
}
