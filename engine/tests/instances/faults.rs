//! Whatever happens to prefill, the client gets the tokens of the undisturbed run, and nothing is left over.

use std::time::Instant;

use futures::StreamExt as _;
use shoal_engine::scheduler::Role;
use shoal_engine::transfer::RefusedFrame;
use shoal_wire::frame::{GREETING_BYTES, HEADER_BYTES, PROOF_BYTES};
use shoal_wire::rpc::engine_server::{Engine as Service, EngineServer};
use shoal_wire::rpc::prefill_event::Event as Sign;
use shoal_wire::rpc::{
    AbortReply, AbortRequest, DrainReply, DrainRequest, EngineState, GenerateEvent, GenerateRequest,
    GetStateRequest, HelloReply, HelloRequest, PrefillDone, PrefillEvent, PrefillRequest, PrefillTarget,
    SetRoleReply, SetRoleRequest, Token, WatchEvent, WatchRequest,
};
use tonic::{Request, Response, Status};

use crate::fleet::{Engine, PATIENCE, STALL, Shape, Weights, prompt, request, run, seeded};
use crate::proxy::{Fault, Proxy};

/// Bytes that a prefill instance sends before the first frame.
const HANDSHAKE: usize = GREETING_BYTES + PROOF_BYTES;
const PROMPT: usize = 300;

/// Two prefill instances and a decode instance whose data socket lies behind a proxy.
struct Fleet {
    p: [Engine; 2],
    d: Engine,
    proxy: Proxy,
}

impl Fleet {
    async fn start(fault: Fault, connections: usize) -> Self {
        let proxy = Proxy::start(fault, connections).await;
        let shape = Shape { data_address: Some(proxy.address.clone()), ..Shape::of(Role::Decode) };
        let d = Engine::shaped("d", shape).await;
        proxy.to(d.instance.inbox.address().to_string());
        let p = [Engine::start("p0", Role::Prefill).await, Engine::start("p1", Role::Prefill).await];
        Self { p, d, proxy }
    }

    /// Runs a request and compares it with an undisturbed run; answers where it was prefilled, and how often
    /// that was tried.
    async fn serve(&self, targets: Vec<PrefillTarget>) -> (String, u32) {
        let expected = expected().await;
        let mut ask = request("r", prompt(1, PROMPT), seeded(10), &[]);
        ask.prefill = targets;
        let begun = Instant::now();
        let output = run(&self.d, ask).await.expect("the client sees no error");
        assert!(begun.elapsed() < PATIENCE / 2, "it took {:?}", begun.elapsed());
        assert_eq!(output.tokens, expected);
        let started = output.started();
        (started.prefilled_by.clone(), started.prefill_attempts)
    }

    fn targets(&self) -> Vec<PrefillTarget> {
        self.p.iter().map(Engine::target).collect()
    }

    fn refused(&self, reason: RefusedFrame) -> u64 {
        self.d.instance.table.refused(reason)
    }

    async fn end(self) {
        let Self { p: [p0, p1], d, proxy } = self;
        for engine in [&p0, &p1, &d] {
            engine.quiet().await;
        }
        drop(proxy);
        for engine in [p0, p1, d] {
            engine.stop().await;
        }
    }
}

async fn expected() -> Vec<Token> {
    let mixed = Engine::start("m", Role::Mixed).await;
    let output = run(&mixed, request("r", prompt(1, PROMPT), seeded(10), &[])).await.expect("it runs");
    mixed.stop().await;
    output.tokens
}

fn page_frame(fleet: &Fleet) -> usize {
    HEADER_BYTES + fleet.d.instance.geometry.page_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_prefill_instance_costs_one_attempt() {
    let fleet = Fleet::start(Fault::None, 0).await;
    let dead = PrefillTarget { instance: "gone".into(), address: "127.0.0.1:1".into() };
    assert_eq!(fleet.serve(vec![dead, fleet.p[1].target()]).await, ("p1".into(), 2));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_prefill_instance_decode_computes_the_prompt() {
    let fleet = Fleet::start(Fault::None, 0).await;
    let dead = |port| PrefillTarget { instance: "gone".into(), address: format!("127.0.0.1:{port}") };
    // At most two are tried, so the living one in third place is not.
    let targets = vec![dead(1), dead(2), fleet.p[0].target()];
    assert_eq!(fleet.serve(targets).await, ("d".into(), 2));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefill_instance_that_accepts_and_says_nothing_is_given_up_after_the_stall_timeout() {
    let fleet = Fleet::start(Fault::None, 0).await;
    let silent = Proxy::start(Fault::Stall(0), usize::MAX).await;
    silent.to(fleet.p[0].address.clone());
    let target = PrefillTarget { instance: "p0".into(), address: silent.address.clone() };
    let begun = Instant::now();
    assert_eq!(fleet.serve(vec![target, fleet.p[1].target()]).await, ("p1".into(), 2));
    assert!(begun.elapsed() >= STALL);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefill_instance_of_another_model_is_refused_before_a_page_moves() {
    let fleet = Fleet::start(Fault::None, 0).await;
    let other = Shape { weights: Weights::Other, ..Shape::of(Role::Prefill) };
    let other = Engine::shaped("other", other).await;
    assert_eq!(fleet.serve(vec![other.target(), fleet.p[1].target()]).await, ("p1".into(), 2));
    assert_eq!(other.instance.state().load.expect("a load").kv_bytes_sent, 0);
    other.quiet().await;
    other.stop().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_socket_cut_anywhere_costs_one_attempt() {
    for at in [0, 20, HANDSHAKE, HANDSHAKE + 30, HANDSHAKE + HEADER_BYTES + 5000] {
        let fleet = Fleet::start(Fault::Cut(at), 1).await;
        assert_eq!(fleet.serve(fleet.targets()).await, ("p1".into(), 2), "cut at {at}");
        assert!(fleet.proxy.struck());
        fleet.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_socket_that_stalls_within_a_page_costs_one_attempt_and_lets_the_page_go() {
    let fleet = Fleet::start(Fault::Stall(HANDSHAKE + HEADER_BYTES + 1000), 1).await;
    assert_eq!(fleet.serve(fleet.targets()).await, ("p1".into(), 2));
    assert!(fleet.proxy.struck());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_landed_before_the_failure_is_not_computed_again() {
    // Every socket breaks inside the second page.
    let fleet = Fleet::start(Fault::None, 0).await;
    let at = HANDSHAKE + page_frame(&fleet) + 500;
    fleet.end().await;
    let fleet = Fleet::start(Fault::Cut(at), usize::MAX).await;
    let mut ask = request("r", prompt(1, PROMPT), seeded(10), &[]);
    ask.prefill = vec![fleet.p[0].target()];
    let output = run(&fleet.d, ask).await.expect("the client sees no error");
    assert_eq!(output.tokens, expected().await);
    assert_eq!(output.started().prefilled_by, "d");
    // Several lanes share the pages, so the prefix without a gap may be empty; it is whole pages in any case.
    assert_eq!(output.started().kv_tokens_received % 64, 0);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turned_bit_is_noticed_and_the_page_asked_for_again() {
    let fleet = Fleet::start(Fault::Flip(HANDSHAKE + HEADER_BYTES + 777), 1).await;
    assert_eq!(fleet.serve(fleet.targets()).await, ("p1".into(), 2));
    assert_eq!(fleet.refused(RefusedFrame::Corrupt), 1);
    fleet.end().await;
}

/// Flips in each field of the first header: transfer, slot, generation, first token, tokens, length, checksum.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_with_a_turned_bit_lands_nowhere() {
    for at in [0, 8, 12, 16, 20, 24, 31, 32] {
        let fleet = Fleet::start(Fault::Flip(HANDSHAKE + at), 1).await;
        assert_eq!(fleet.serve(fleet.targets()).await, ("p1".into(), 2), "byte {at}");
        assert!(fleet.d.instance.table.refused_total() >= 1, "byte {at}");
        fleet.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefill_instance_that_lies_about_what_it_sent_is_not_believed() {
    let frames = PROMPT.div_ceil(64) as u32;
    let token = |id| Some(Token { id, ..Default::default() });
    for (frames, tokens, first) in [
        (1, 1, token(5)),
        // Said to be sent, and never was.
        (frames, PROMPT, token(5)),
        (frames, PROMPT, token(1 << 30)),
        (frames, PROMPT, None),
    ] {
        let fleet = Fleet::start(Fault::None, 0).await;
        let payload_bytes = (tokens * fleet.d.instance.geometry.token_bytes()) as u64;
        let lie = PrefillDone { first, frames, payload_bytes, ..Default::default() };
        let liar = PrefillTarget { instance: "liar".into(), address: Liar(lie.clone()).start().await };
        let (by, attempts) = fleet.serve(vec![liar, fleet.p[1].target()]).await;
        assert_eq!((by.as_str(), attempts), ("p1", 2), "{lie:?}");
        fleet.end().await;
    }
}

/// A peer that answers every prefill at once, without having done anything.
struct Liar(PrefillDone);

impl Liar {
    async fn start(self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(EngineServer::new(self));
        tokio::spawn(server.serve_with_incoming(incoming));
        address
    }
}

type Stream<T> = futures::stream::BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Service for Liar {
    type GenerateStream = Stream<GenerateEvent>;
    type PrefillStream = Stream<PrefillEvent>;
    type WatchStream = Stream<WatchEvent>;

    async fn prefill(&self, _: Request<PrefillRequest>) -> Result<Response<Stream<PrefillEvent>>, Status> {
        let done = PrefillEvent { event: Some(Sign::Done(self.0.clone())) };
        Ok(Response::new(futures::stream::iter([Ok(done)]).chain(futures::stream::pending()).boxed()))
    }

    async fn generate(&self, _: Request<GenerateRequest>) -> Result<Response<Stream<GenerateEvent>>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<AbortReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn get_state(&self, _: Request<GetStateRequest>) -> Result<Response<EngineState>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn set_role(&self, _: Request<SetRoleRequest>) -> Result<Response<SetRoleReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<DrainReply>, Status> {
        Err(Status::unimplemented("a liar"))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Stream<WatchEvent>>, Status> {
        Err(Status::unimplemented("a liar"))
    }
}
