//! Requests that end early, in every state: work stops, and pages and sockets come back.

use std::time::Duration;

use shoal_engine::scheduler::Role;
use shoal_wire::rpc::generate_event::Event;
use shoal_wire::rpc::{AbortRequest, FinishReason, PageSlot, PrefillRequest};
use tonic::Code;

use crate::fleet::{
    Engine, Shape, eventually, first_token, greedy, open, prompt, reason, request, run, seeded, signed,
};
use crate::proxy::{Fault, Proxy};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_while_decoding_stops_the_work() {
    let engine = Engine::start("m", Role::Mixed).await;
    let mut stream = open(&engine, request("a", prompt(1, 70), greedy(3000), &[])).await.expect("it runs");
    first_token(&mut stream).await;
    drop(stream);
    engine.quiet().await;
    let produced = engine.instance.state().load.expect("a load").tokens_out;
    assert!(produced < 3000, "it produced {produced} tokens for nobody");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn abort_ends_a_stream_with_its_reason_and_a_second_abort_finds_nothing() {
    let engine = Engine::start("m", Role::Mixed).await;
    let mut stream = open(&engine, request("a", prompt(1, 70), greedy(3000), &[])).await.expect("it runs");
    first_token(&mut stream).await;
    let mut client = engine.client().await;
    let abort = || signed(AbortRequest { request_id: "a".into() });
    assert!(client.abort(abort()).await.expect("it answers").into_inner().found);
    let mut reason = None;
    while let Some(event) = stream.message().await.expect("it ends cleanly") {
        if let Some(Event::Finished(finished)) = event.event {
            reason = Some(finished.reason());
        }
    }
    assert_eq!(reason, Some(FinishReason::Aborted));
    engine.quiet().await;
    assert!(!client.abort(abort()).await.expect("it answers").into_inner().found);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away_in_the_queue_leave_it() {
    let shape = Shape { max_batch: 1, ..Shape::of(Role::Mixed) };
    let engine = Engine::shaped("m", shape).await;
    let mut running = open(&engine, request("a", prompt(1, 70), greedy(3000), &[])).await.expect("it runs");
    first_token(&mut running).await;
    let mut queued = Vec::new();
    for i in 2..6 {
        let ask = request(&i.to_string(), prompt(i, 70), greedy(10), &[]);
        queued.push(open(&engine, ask).await.expect("it waits"));
    }
    eventually("four wait", || engine.instance.handle.state().in_flight == 5).await;
    drop(queued);
    eventually("they left", || engine.instance.handle.state().in_flight == 1).await;
    drop(running);
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_request_like_an_abort() {
    let engine = Engine::start("m", Role::Mixed).await;
    let mut ask = request("a", prompt(1, 70), greedy(4000), &[]);
    ask.deadline_ms = 60;
    let output = run(&engine, ask).await.expect("it ends cleanly");
    assert_eq!(output.finished[0].1, FinishReason::Aborted);
    engine.quiet().await;
    engine.stop().await;
}

/// While decode waits for pages: the data socket stalls, so the transfer is open until somebody gives up.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_during_the_transfer_frees_both_sides() {
    let proxy = Proxy::start(Fault::Stall(5000), usize::MAX).await;
    let shape = Shape { data_address: Some(proxy.address.clone()), ..Shape::of(Role::Decode) };
    let d = Engine::shaped("d", shape).await;
    proxy.to(d.instance.inbox.address().to_string());
    let p = Engine::start("p", Role::Prefill).await;
    let stream = open(&d, request("a", prompt(1, 500), seeded(10), &[&p])).await.expect("it runs");
    eventually("the socket stalls", || proxy.struck()).await;
    assert_eq!(d.instance.table.open_transfers(), 1);
    drop(stream);
    d.quiet().await;
    p.quiet().await;
    p.stop().await;
    d.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn abort_during_the_transfer_ends_the_request_on_both_sides() {
    let proxy = Proxy::start(Fault::Stall(5000), usize::MAX).await;
    let shape = Shape { data_address: Some(proxy.address.clone()), ..Shape::of(Role::Decode) };
    let d = Engine::shaped("d", shape).await;
    proxy.to(d.instance.inbox.address().to_string());
    let p = Engine::start("p", Role::Prefill).await;
    let call = run(&d, request("a", prompt(1, 500), seeded(10), &[&p]));
    let abort = async {
        eventually("the socket stalls", || proxy.struck()).await;
        let mut client = d.client().await;
        client.abort(signed(AbortRequest { request_id: "a".into() })).await.expect("it answers")
    };
    let (output, found) = tokio::join!(call, abort);
    assert!(found.into_inner().found);
    assert_eq!(output.expect("it ends cleanly").finished, [(0, FinishReason::Aborted, 0)]);
    d.quiet().await;
    p.quiet().await;
    p.stop().await;
    d.stop().await;
}

fn prefill_request(p: &Engine, data_address: String, length: usize) -> PrefillRequest {
    let slots = (0..length.div_ceil(64)).map(|slot| PageSlot { slot: slot as u32, generation: 1 });
    PrefillRequest {
        request_id: "direct".into(),
        tokens: prompt(1, length),
        sampling: Some(greedy(4)),
        fingerprint: Some(p.instance.identity.fingerprint.clone()),
        decode_instance: "d".into(),
        decode_incarnation: "1".into(),
        data_address,
        transfer: 77,
        slots: slots.collect(),
        lease_ms: 500,
        ..Default::default()
    }
}

/// The decode instance is gone: nobody accepts its data connections, or somebody does and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn pages_for_a_decode_instance_that_is_gone_come_back_within_the_lease() {
    let p = Engine::start("p", Role::Prefill).await;
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mute = mute.local_addr().expect("bound").to_string();
    for data_address in ["127.0.0.1:1".to_owned(), mute] {
        let ask = signed(prefill_request(&p, data_address, 200));
        let mut stream = p.client().await.prefill(ask).await.expect("it runs").into_inner();
        let status = loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended as if the pages had been sent"),
                Err(status) => break status,
            }
        };
        assert_eq!(reason(&status), "transfer", "{status:?}");
        p.quiet().await;
    }
    p.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decode_instance_that_drops_the_call_stops_the_prefill() {
    let p = Engine::shaped("p", Shape { chunk: 8, ..Shape::of(Role::Prefill) }).await;
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = mute.local_addr().expect("bound").to_string();
    let ask = signed(prefill_request(&p, address, 3000));
    let mut stream = p.client().await.prefill(ask).await.expect("it runs").into_inner();
    stream.message().await.expect("it runs");
    drop(stream);
    p.quiet().await;
    let computed = p.instance.state().load.expect("a load");
    assert_eq!(computed.running, 0);
    p.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_sockets_close_with_the_instances_that_opened_them() {
    let p = Engine::start("p", Role::Prefill).await;
    let d = Engine::start("d", Role::Decode).await;
    run(&d, request("a", prompt(1, 200), greedy(2), &[&p])).await.expect("it runs");
    assert!(d.instance.inbox.sockets() > 0);
    p.quiet().await;
    p.stop().await;
    eventually("the sockets are closed", || d.instance.inbox.sockets() == 0).await;
    d.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_carries_heartbeats() {
    let shape = Shape { max_batch: 1, ..Shape::of(Role::Mixed) };
    let engine = Engine::shaped("m", shape).await;
    let mut running = open(&engine, request("a", prompt(1, 70), greedy(4000), &[])).await.expect("it runs");
    first_token(&mut running).await;
    let mut queued = open(&engine, request("b", prompt(2, 70), greedy(4), &[])).await.expect("it waits");
    let first = tokio::time::timeout(Duration::from_secs(5), queued.message()).await;
    let first = first.expect("within seconds").expect("it runs").expect("a message");
    assert!(first.event.is_some());
    drop((running, queued));
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why_in_a_word() {
    let p = Engine::start("p", Role::Prefill).await;
    let status = run(&p, request("a", prompt(1, 5), greedy(4), &[])).await.expect_err("a prefill instance");
    assert_eq!((status.code(), reason(&status)), (Code::FailedPrecondition, "role"));
    let m = Engine::start("m", Role::Mixed).await;
    let status = run(&m, request("a", prompt(1, 4096), greedy(4), &[])).await.expect_err("too long");
    assert_eq!((status.code(), reason(&status)), (Code::InvalidArgument, "too_long"));
    p.stop().await;
    m.stop().await;
}
