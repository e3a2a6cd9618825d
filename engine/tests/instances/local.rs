//! Generate without a prefill instance.

use shoal_engine::scheduler::Role;
use shoal_wire::rpc::{FinishReason, Grammar, Sampling, grammar};
use tonic::Code;

use crate::fleet::{Engine, Shape, greedy, prompt, reason, request, run, seeded};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_what_it_cost_and_ends_once() {
    let engine = Engine::start("m", Role::Mixed).await;
    let output = run(&engine, request("a", prompt(1, 70), greedy(5), &[])).await.expect("it runs");
    assert_eq!(output.finished, [(0, FinishReason::Length, 5)]);
    assert_eq!(output.ids().len(), 5);
    let started = output.started();
    assert_eq!((started.prompt_tokens, started.cached_tokens, started.prefill_attempts), (70, 0, 1));
    assert_eq!((started.prefilled_by.as_str(), started.kv_bytes_received), ("m", 0));
    assert!(output.tokens.iter().all(|token| token.logprob.is_some() && token.top.len() == 2));
    let again = run(&engine, request("b", prompt(1, 70), greedy(5), &[])).await.expect("it runs");
    assert_eq!((again.ids(), again.started().cached_tokens), (output.ids(), 64));
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_share_the_prompt_and_the_first_is_as_if_alone() {
    let engine = Engine::start("m", Role::Mixed).await;
    let alone = run(&engine, request("a", prompt(2, 100), seeded(8), &[])).await.expect("it runs");
    let mut three = request("b", prompt(2, 100), seeded(8), &[]);
    three.choices = 3;
    let output = run(&engine, three).await.expect("it runs");
    assert_eq!(output.ids(), alone.ids());
    assert_eq!(output.finished.len(), 3);
    let of = |choice| -> Vec<u32> {
        output.others.iter().filter(|(c, _)| *c == choice).map(|(_, token)| token.id).collect()
    };
    assert_eq!((of(1).len(), of(2).len()), (8, 8));
    assert_ne!(of(1), of(2), "each choice samples with a seed of its own");
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_request_goes_on_as_if_nothing_had_happened() {
    let engine = Engine::start("m", Role::Mixed).await;
    let whole = run(&engine, request("a", prompt(3, 50), seeded(20), &[])).await.expect("it runs");
    let mut tokens = prompt(3, 50);
    tokens.extend(&whole.ids()[..7]);
    let mut replay = request("a", tokens, seeded(20), &[]);
    replay.generated = 7;
    let rest = run(&engine, replay).await.expect("it runs");
    assert_eq!(rest.tokens, whole.tokens[7..]);
    assert_eq!(rest.finished, [(0, FinishReason::Length, 20)]);
    assert_eq!(rest.started().prompt_tokens, 50);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grammar_holds_also_for_a_replay_and_a_bad_one_is_refused() {
    let engine = Engine::start("m", Role::Mixed).await;
    let digits = |source: &str| Sampling {
        grammar: Some(Grammar { kind: grammar::Kind::Regex.into(), source: source.to_owned() }),
        ignore_eos: false,
        ..seeded(16)
    };
    let output = run(&engine, request("a", prompt(4, 20), digits("[0-9]{6}"), &[])).await.expect("it runs");
    assert_eq!(output.tokens.len(), 6, "{output:?}");
    let mut tokens = prompt(4, 20);
    tokens.extend(&output.ids()[..2]);
    let mut replay = request("a", tokens, digits("[0-9]{6}"), &[]);
    replay.generated = 2;
    assert_eq!(run(&engine, replay).await.expect("it runs").ids(), output.ids()[2..]);
    let refused = run(&engine, request("b", prompt(4, 20), digits("[0-9"), &[])).await.expect_err("bad");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("grammar.source"), "{}", refused.message());
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grammar_of_a_thousand_chained_rules_does_not_exhaust_the_stack() {
    let engine = Engine::start("m", Role::Mixed).await;
    let chain: Vec<String> = (0..1000).map(|rule| format!("r{rule}: \"a\" r{}\n", rule + 1)).collect();
    let source = format!("start: r0\n{}r1000: \"b\"\n", chain.concat());
    let sampling =
        Sampling { grammar: Some(Grammar { kind: grammar::Kind::Lark.into(), source }), ..seeded(4) };
    // Whether it compiles is the compiler's matter; the engine lives on either way.
    let _ = run(&engine, request("deep", prompt(5, 20), sampling, &[])).await;
    let after = run(&engine, request("after", prompt(5, 20), greedy(2), &[])).await.expect("it runs");
    assert_eq!(after.tokens.len(), 2);
    engine.quiet().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_more_requests_than_fit_are_refused_or_served_but_never_lost() {
    let shape = Shape { max_batch: 2, max_waiting: 4, ..Shape::of(Role::Mixed) };
    let engine = Engine::shaped("m", shape).await;
    let calls = (0..60).map(|i| run(&engine, request(&i.to_string(), prompt(i, 80), greedy(24), &[])));
    let outcomes = futures::future::join_all(calls).await;
    let (served, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert!(served.iter().flatten().all(|output| output.tokens.len() == 24));
    assert!(!refused.is_empty(), "sixty requests fit into a queue of four");
    for status in refused.into_iter().filter_map(Result::err) {
        assert_eq!((status.code(), reason(&status)), (Code::ResourceExhausted, "queue_full"));
    }
    assert!(served.len() >= 4);
    engine.quiet().await;
    engine.stop().await;
}
