//! Roles, drain, identity, authentication and refusals of malformed requests.

use shoal_engine::scheduler::Role;
use shoal_wire::FleetSecret;
use shoal_wire::rpc::{
    DrainRequest, GenerateRequest, GetStateRequest, HelloRequest, PrefillTarget, Role as WireRole, Sampling,
    SetRoleRequest, WatchRequest,
};
use tonic::{Code, Request};

use crate::fleet::{Engine, first_token, greedy, open, prompt, reason, request, run, secret, signed};

#[tokio::test(flavor = "multi_thread")]
async fn a_role_changes_under_a_running_stream_and_older_epochs_are_refused() {
    let engine = Engine::start("e", Role::Decode).await;
    let mut client = engine.client().await;
    let mut stream = open(&engine, request("a", prompt(1, 70), greedy(3000), &[])).await.expect("it runs");
    first_token(&mut stream).await;
    let set = |role: WireRole, epoch| signed(SetRoleRequest { role: role.into(), epoch });
    let reply = client.set_role(set(WireRole::Prefill, 5)).await.expect("accepted").into_inner();
    assert_eq!((reply.role(), reply.epoch, reply.decode_residue), (WireRole::Prefill, 5, 1));
    let stale = client.set_role(set(WireRole::Mixed, 4)).await.expect_err("older");
    assert_eq!((stale.code(), reason(&stale)), (Code::FailedPrecondition, "epoch"));
    let unset = client.set_role(set(WireRole::Unspecified, 6)).await.expect_err("no role");
    assert!(unset.message().contains("ROLE_PREFILL"), "{}", unset.message());
    let refused = run(&engine, request("b", prompt(2, 5), greedy(4), &[])).await.expect_err("prefill only");
    assert_eq!(reason(&refused), "role");
    let mut events = 0;
    while stream.message().await.expect("the old role's work runs to its end").is_some() {
        events += 1;
    }
    assert!(events > 1);
    let again = client.set_role(set(WireRole::Prefill, 5)).await.expect("the same again").into_inner();
    assert_eq!(again.decode_residue, 0);
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_admits_nothing_new_and_can_be_undone() {
    let engine = Engine::start("e", Role::Mixed).await;
    let mut client = engine.client().await;
    let mut stream = open(&engine, request("a", prompt(1, 70), greedy(3000), &[])).await.expect("it runs");
    first_token(&mut stream).await;
    let drain = |undo| signed(DrainRequest { undo, epoch: 1 });
    assert_eq!(client.drain(drain(false)).await.expect("accepted").into_inner().in_flight, 1);
    let refused = run(&engine, request("b", prompt(2, 5), greedy(4), &[])).await.expect_err("draining");
    assert_eq!((refused.code(), reason(&refused)), (Code::FailedPrecondition, "draining"));
    while stream.message().await.expect("running work goes on").is_some() {}
    client.drain(drain(true)).await.expect("accepted");
    run(&engine, request("c", prompt(2, 5), greedy(4), &[])).await.expect("admitted again");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_needs_the_fleets_token() {
    let engine = Engine::start("e", Role::Mixed).await;
    let mut client = engine.client().await;
    let stranger = FleetSecret::from_bytes([8; 32]);
    macro_rules! refused {
        ($($call:ident($message:expr)),+ $(,)?) => {$(
            let bare = client.$call(Request::new($message)).await.expect_err(stringify!($call));
            let foreign = client.$call(stranger.sign(Request::new($message))).await.expect_err("foreign");
            assert_eq!((bare.code(), foreign.code()), (Code::Unauthenticated, Code::Unauthenticated));
        )+};
    }
    refused!(
        generate(GenerateRequest::default()),
        prefill(shoal_wire::rpc::PrefillRequest::default()),
        abort(shoal_wire::rpc::AbortRequest::default()),
        hello(HelloRequest::default()),
        get_state(GetStateRequest::default()),
        set_role(SetRoleRequest::default()),
        drain(DrainRequest::default()),
        watch(WatchRequest::default()),
    );
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_tells_who_this_is_and_refuses_another_layout() {
    let engine = Engine::start("e", Role::Mixed).await;
    let mut client = engine.client().await;
    let hello =
        client.hello(signed(HelloRequest { fingerprint: None })).await.expect("it answers").into_inner();
    assert_eq!((hello.instance.as_str(), hello.incarnation.len(), hello.vocabulary), ("e", 16, 288));
    assert_eq!(hello.data_address, engine.instance.inbox.address().to_string());
    let mut theirs = hello.fingerprint.expect("a fingerprint");
    theirs.kv_dtype = "f32".into();
    let status = client.hello(signed(HelloRequest { fingerprint: Some(theirs) })).await.expect_err("differs");
    assert_eq!((status.code(), reason(&status)), (Code::FailedPrecondition, "fingerprint"));
    assert!(status.message().contains("kv dtype differs"), "{}", status.message());
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_with_the_field_and_what_is_allowed() {
    type Breaks = fn(&mut GenerateRequest);
    let cases: [(&str, Breaks); 16] = [
        ("request_id", |r| r.request_id = "x".repeat(65)),
        ("request_id", |r| r.request_id.clear()),
        ("tokens", |r| r.tokens.clear()),
        ("tokens", |r| r.tokens[0] = 288),
        ("generated", |r| r.generated = 5),
        ("generated", |r| r.generated = 4),
        ("choices", |r| r.choices = 65),
        ("choices", |r| (r.choices, r.generated) = (2, 1)),
        ("tenant_salt", |r| r.tenant_salt = vec![0; 33].into()),
        ("deadline_ms", |r| r.deadline_ms = u64::MAX),
        ("prefill", |r| r.prefill = vec![PrefillTarget { address: "h:1".into(), ..Default::default() }; 5]),
        ("prefill.address", |r| {
            r.prefill = vec![PrefillTarget { address: "h:0".into(), ..Default::default() }];
        }),
        ("prefill.address", |r| {
            r.prefill = vec![PrefillTarget { address: "a@b/c:1".into(), ..Default::default() }];
        }),
        ("sampling", |r| r.sampling = None),
        ("sampling.top_p", |r| r.sampling = Some(Sampling { top_p: f32::NAN, ..greedy(4) })),
        ("sampling.max_tokens", |r| r.sampling = Some(greedy(0))),
    ];
    let engine = Engine::start("e", Role::Mixed).await;
    for (field, breaks) in cases {
        let mut ask = request("a", prompt(1, 5), greedy(4), &[]);
        breaks(&mut ask);
        let status = run(&engine, ask).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        let message = status.message();
        assert!(
            message.contains(&format!("`{field}`")) && message.contains("allowed is"),
            "{field}: {message}"
        );
    }
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_and_metrics_report_the_same_work() {
    let engine = Engine::start("e", Role::Mixed).await;
    run(&engine, request("a", prompt(1, 70), greedy(6), &[])).await.expect("it runs");
    engine.quiet().await;
    let state = engine.client().await.get_state(signed(GetStateRequest {})).await.expect("it answers");
    let load = state.into_inner().load.expect("a load");
    assert_eq!((load.tokens_in, load.tokens_out, load.pages_total), (70, 6, 64));
    let text = engine.instance.metrics.render(&engine.instance).expect("it renders");
    let text = String::from_utf8(text).expect("text");
    for line in [
        "shoal_engine_requests_total{outcome=\"finished\",purpose=\"generate\"} 1",
        "shoal_engine_prompt_tokens_total 70",
        "shoal_engine_output_tokens_total 6",
        "shoal_engine_kv_pages{state=\"used\"} 0",
        "shoal_engine_frames_refused_total{reason=\"corrupt\"} 0",
        "shoal_engine_time_to_first_token_seconds_count 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains(&format!("{:?}", secret())), "the secret is nowhere");
    engine.stop().await;
}
