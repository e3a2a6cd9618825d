//! Prefill here, decode there: the output is that of one instance doing both.

use shoal_engine::scheduler::Role;
use shoal_wire::rpc::FinishReason;

use crate::fleet::{Engine, greedy, prompt, request, run, seeded};

async fn pair() -> (Engine, Engine, Engine) {
    (
        Engine::start("p", Role::Prefill).await,
        Engine::start("d", Role::Decode).await,
        Engine::start("m", Role::Mixed).await,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn output_equals_that_of_one_instance_and_exactly_the_prompts_kv_moves() {
    let (p, d, mixed) = pair().await;
    let token_bytes = d.instance.geometry.token_bytes() as u64;
    let mut moved = 0;
    for (salt, length) in (10..).zip([1_usize, 63, 64, 65, 128, 513]) {
        for sampling in [greedy(12), seeded(12)] {
            let id = format!("{length}");
            let mut tokens = prompt(salt, length);
            if sampling.temperature > 0.0 {
                tokens[0] += 1;
            }
            let expected =
                run(&mixed, request(&id, tokens.clone(), sampling.clone(), &[])).await.expect("it runs");
            let output = run(&d, request(&id, tokens, sampling, &[&p])).await.expect("it runs");
            assert_eq!(output.tokens, expected.tokens, "{length} tokens");
            assert_eq!(output.finished, [(0, FinishReason::Length, 12)]);
            let started = output.started();
            assert_eq!((started.prefilled_by.as_str(), started.prefill_attempts), ("p", 1));
            assert_eq!(started.kv_tokens_received as usize, length);
            assert_eq!(started.kv_bytes_received, length as u64 * token_bytes);
            moved += started.kv_bytes_received;
        }
    }
    let load = |engine: &Engine| engine.instance.state().load.expect("a load");
    assert_eq!((load(&p).kv_bytes_sent, load(&d).kv_bytes_received), (moved, moved));
    assert_eq!(load(&d).frames_refused, 0);
    assert!(load(&d).transfer_rate > 0.0 && load(&d).prefill_overhead_ms > 0.0);
    for engine in [p, d, mixed] {
        engine.quiet().await;
        engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_decode_has_cached_do_not_move_again() {
    let (p, d, mixed) = pair().await;
    let first = run(&d, request("a", prompt(1, 200), greedy(4), &[&p])).await.expect("it runs");
    let again = run(&d, request("b", prompt(1, 200), greedy(4), &[&p])).await.expect("it runs");
    assert_eq!(again.ids(), first.ids());
    assert_eq!((first.started().kv_tokens_received, again.started().kv_tokens_received), (200, 200 - 192));
    assert_eq!(again.started().cached_tokens, 192);
    for engine in [p, d, mixed] {
        engine.quiet().await;
        engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_at_once_get_the_tokens_they_would_get_alone() {
    let (p, d, mixed) = pair().await;
    let sampling = |i| if i % 2 == 0 { greedy(10) } else { seeded(10) };
    let ask = |i: u32, prefill: Vec<&Engine>| {
        request(&format!("r{i}"), prompt(i, 20 + 13 * i as usize), sampling(i), &prefill)
    };
    let outputs = futures::future::join_all((0..24).map(|i| run(&d, ask(i, vec![&p])))).await;
    for (i, output) in (0..).zip(outputs) {
        let expected = run(&mixed, ask(i, vec![])).await.expect("it runs");
        assert_eq!(output.expect("it runs").tokens, expected.tokens, "request {i}");
    }
    for engine in [p, d, mixed] {
        engine.quiet().await;
        engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_request_can_be_prefilled_elsewhere() {
    let (p, d, mixed) = pair().await;
    let whole = run(&mixed, request("a", prompt(5, 90), seeded(16), &[])).await.expect("it runs");
    let mut tokens = prompt(5, 90);
    tokens.extend(&whole.ids()[..6]);
    let mut replay = request("a", tokens, seeded(16), &[&p]);
    replay.generated = 6;
    let rest = run(&d, replay).await.expect("it runs");
    assert_eq!(rest.tokens, whole.tokens[6..]);
    assert_eq!(rest.started().kv_tokens_received, 96);
    for engine in [p, d, mixed] {
        engine.quiet().await;
        engine.stop().await;
    }
}
