//! Data clients that do not follow the protocol, with and without the fleet's secret.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use shoal_engine::request::Slot;
use shoal_engine::scheduler::Role;
use shoal_engine::transfer::{Expected, Incoming, RefusedFrame};
use shoal_wire::frame::{GREETING_BYTES, Greeting, PROOF_BYTES, PageHeader, Side, proof};

use crate::fleet::{Engine, Shape, eventually, greedy, prompt, request, run, secret};

/// A data client that knows the protocol and, if `key` is right, the secret.
fn connect(engine: &Engine, key: &[u8; 32]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(engine.instance.inbox.address())?;
    let ours = Greeting { nonce: [3; 32] };
    stream.write_all(&ours.encode())?;
    let mut greeting = [0; GREETING_BYTES];
    stream.read_exact(&mut greeting)?;
    let theirs = Greeting::decode(&greeting).map_err(std::io::Error::other)?;
    stream.write_all(&proof(key, Side::Client, &ours, &theirs))?;
    let mut answer = [0; PROOF_BYTES];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, proof(key, Side::Server, &ours, &theirs));
    Ok(stream)
}

/// A transfer of 100 tokens into the engine's first two pages, which no request uses.
fn expect_pages(engine: &Engine) -> (Incoming, Vec<Slot>) {
    let slots: Vec<Slot> = (0..2).map(|page| engine.instance.handle.generations().slot(page)).collect();
    let expected = Expected { first_token: 64, tokens: 164, slots: slots.clone() };
    (engine.instance.table.open(expected).expect("random bytes"), slots)
}

/// The frame that the transfer's first page wants.
fn frame(engine: &Engine, transfer: u64, slot: Slot) -> (PageHeader, Vec<u8>) {
    let payload = vec![9; engine.instance.geometry.page_bytes()];
    let header = PageHeader {
        transfer,
        slot: slot.page,
        generation: slot.generation,
        first_token: 64,
        tokens: 64,
        payload_bytes: payload.len() as u64,
        checksum: PageHeader::checksum_of(transfer, &payload),
    };
    (header, payload)
}

fn send(stream: &mut TcpStream, header: &PageHeader, payload: &[u8]) {
    stream.write_all(&header.encode()).expect("it reads");
    stream.write_all(payload).expect("it reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_frame_is_counted_by_its_reason_and_the_right_one_after_it_lands() {
    type Breaks = fn(&mut PageHeader);
    let engine = Engine::start("d", Role::Decode).await;
    let refused = |reason| engine.instance.table.refused(reason);
    let mut stream = connect(&engine, &secret().data_key()).expect("proven");
    let (incoming, slots) = expect_pages(&engine);
    let (right, payload) = frame(&engine, incoming.id(), slots[0]);
    let wrong: [(RefusedFrame, Breaks); 9] = [
        (RefusedFrame::Unknown, |h| h.transfer ^= 1),
        (RefusedFrame::Slot, |h| h.slot = 40),
        (RefusedFrame::Slot, |h| h.slot = u32::MAX),
        (RefusedFrame::Slot, |h| h.first_token = 65),
        (RefusedFrame::Slot, |h| h.first_token = 0),
        (RefusedFrame::Slot, |h| h.first_token = 64 * 40),
        (RefusedFrame::Generation, |h| h.generation += 1),
        (RefusedFrame::Length, |h| h.tokens = 63),
        (RefusedFrame::Length, |h| h.payload_bytes -= 2),
    ];
    for (reason, breaks) in wrong {
        let before = refused(reason);
        let mut header = right;
        breaks(&mut header);
        send(&mut stream, &header, &payload[..header.payload_bytes as usize]);
        eventually(reason.name(), || refused(reason) == before + 1).await;
        assert_eq!(incoming.landing().pages, 0);
    }
    send(&mut stream, &right, &payload);
    eventually("the page landed", || incoming.landing().pages == 1).await;
    assert_eq!(incoming.landing().payload_bytes, payload.len() as u64);
    send(&mut stream, &right, &payload);
    eventually("a duplicate", || refused(RefusedFrame::Duplicate) == 1).await;
    drop(incoming);
    send(&mut stream, &right, &payload);
    eventually("a late frame", || refused(RefusedFrame::Late) == 1).await;
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_page_fails_its_transfer_and_lets_the_page_go() {
    let engine = Engine::start("d", Role::Decode).await;
    let mut stream = connect(&engine, &secret().data_key()).expect("proven");
    let (incoming, slots) = expect_pages(&engine);
    let (header, mut payload) = frame(&engine, incoming.id(), slots[0]);
    payload[100] ^= 1;
    send(&mut stream, &header, &payload);
    eventually("it failed", || incoming.landing().failed.is_some()).await;
    assert_eq!((incoming.landing().pages, incoming.landed_pages()), (0, 0));
    drop(incoming);
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_a_page_that_changed_hands_lands_nowhere() {
    let engine = Engine::start("d", Role::Decode).await;
    let (incoming, slots) = expect_pages(&engine);
    // Requests use the pages meanwhile; their generations end with them.
    for salt in 0..20 {
        run(&engine, request("a", prompt(salt, 3000), greedy(2), &[])).await.expect("it runs");
    }
    let current = engine.instance.handle.generations().slot(slots[0].page);
    assert_ne!(current, slots[0], "the page was never used");
    let mut stream = connect(&engine, &secret().data_key()).expect("proven");
    let (header, payload) = frame(&engine, incoming.id(), slots[0]);
    let before = engine.instance.table.refused(RefusedFrame::Generation);
    send(&mut stream, &header, &payload);
    eventually("refused", || engine.instance.table.refused_total() > before).await;
    assert_eq!(incoming.landing().pages, 0);
    drop(incoming);
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_frame_ends_the_socket_before_anything_is_read_for_it() {
    let engine = Engine::start("d", Role::Decode).await;
    let mut stream = connect(&engine, &secret().data_key()).expect("proven");
    let (incoming, slots) = expect_pages(&engine);
    let (mut header, _) = frame(&engine, incoming.id(), slots[0]);
    header.payload_bytes = u64::MAX;
    stream.write_all(&header.encode()).expect("it reads");
    assert_eq!(stream.read(&mut [0]).expect("it closes"), 0);
    assert_eq!(engine.instance.table.refused(RefusedFrame::Oversized), 1);
    drop(incoming);
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_past_the_handshake_without_the_secret() {
    let engine = Engine::start("d", Role::Decode).await;
    connect(&engine, &[0; 32]).expect_err("a wrong proof");
    let mut garbage = TcpStream::connect(engine.instance.inbox.address()).expect("it accepts");
    garbage.write_all(&[b'G'; 200]).expect("it reads");
    let mut byte = [0];
    assert!(matches!(garbage.read(&mut byte), Ok(0) | Err(_)), "it answered {byte:?}");
    eventually("both are closed", || engine.instance.inbox.sockets() == 0).await;
    engine.stop().await;
}

/// More silent strangers than there are places for handshakes: each loses its place within seconds, and
/// proven sockets are not affected.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_that_say_nothing_lose_their_place() {
    let p = Engine::start("p", Role::Prefill).await;
    let d = Engine::shaped("d", Shape::of(Role::Decode)).await;
    run(&d, request("a", prompt(1, 200), greedy(2), &[&p])).await.expect("it runs");
    let proven = d.instance.inbox.sockets();
    let strangers: Vec<TcpStream> =
        (0..40).filter_map(|_| TcpStream::connect(d.instance.inbox.address()).ok()).collect();
    run(&d, request("b", prompt(2, 60), greedy(2), &[&p])).await.expect("a proven socket still serves");
    eventually("the strangers are gone", || d.instance.inbox.sockets() <= proven).await;
    drop(strangers);
    for engine in [p, d] {
        engine.quiet().await;
        engine.stop().await;
    }
}
