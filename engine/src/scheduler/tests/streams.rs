//! Requests that are computed here from beginning to end.

use super::*;
use crate::grammar::GrammarCompiler;
use shoal_wire::rpc::grammar::Kind;

#[test]
fn outputs_do_not_depend_on_page_and_chunk_borders() {
    let engine = Engine::start(200, limits());
    for length in [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 50] {
        engine.submit(ask(prompt(length as u32, length), 13)).assert_expected();
    }
    engine.assert_idle();
}

#[test]
fn outputs_do_not_depend_on_what_else_is_in_the_batch() {
    let engine = Engine::start(400, limits());
    let asks = (0..20).map(|n| ask(prompt(n, 3 + 5 * n as usize % 37), 5 + n as usize).seeded(u64::from(n)));
    let mut clients: Vec<Client> = asks.map(|ask| engine.submit(ask)).collect();
    clients.iter_mut().for_each(Client::assert_expected);
    let widest = engine.gate.steps().iter().map(Vec::len).max();
    assert!(widest >= Some(4), "nothing was batched");
    engine.assert_idle();
}

#[test]
fn a_step_carries_no_more_prompt_tokens_than_the_chunk() {
    let engine = Engine::start(400, limits());
    let mut clients: Vec<Client> = (0..6).map(|n| engine.submit(ask(prompt(n, 60), 4))).collect();
    clients.iter_mut().for_each(Client::assert_expected);
    for rows in engine.gate.steps() {
        let prompt_tokens: usize = rows.iter().map(|(_, tokens)| tokens).filter(|tokens| **tokens > 1).sum();
        assert!(prompt_tokens <= 8 && rows.len() <= 8, "{rows:?}");
    }
}

#[test]
fn a_long_prompt_blocks_neither_streams_nor_short_prompts() {
    let engine = Engine::start(400, limits());
    engine.gate.allow(3);
    let mut stream = engine.submit(ask(prompt(1, 5), 200));
    stream.token();
    let mut long = engine.submit(ask(prompt(2, 400), 2));
    let mut short = engine.submit(ask(prompt(3, 8), 2));
    let before = engine.gate.steps().len();
    engine.gate.allow(6);
    short.token();
    engine.gate.open();
    long.assert_expected();
    stream.assert_expected();
    let steps = engine.gate.steps();
    let mixed =
        steps[before..].iter().filter(|rows| rows.iter().any(|(start, _)| *start >= 5) && rows.len() > 1);
    assert!(mixed.count() > 30, "the stream went on beside the long prompt");
}

#[test]
fn a_full_pool_preempts_the_youngest_and_changes_no_token() {
    let engine = Engine::start(20, limits());
    let asks = (0..4).map(|n| ask(prompt(n, 10), 40).seeded(u64::from(n)));
    let mut clients: Vec<Client> = asks.map(|ask| engine.submit(ask)).collect();
    clients.iter_mut().for_each(Client::assert_expected);
    let state = engine.state_when(|state| state.in_flight == 0);
    assert!(state.load.preemptions > 0, "the pool was never full");
    engine.assert_idle();
}

#[test]
fn a_known_prefix_is_not_computed_again() {
    let engine = Engine::start(100, limits());
    let tokens = prompt(1, 40);
    engine.submit(ask(tokens.clone(), 3)).assert_expected();
    let before = engine.gate.steps().len();
    let mut again = engine.submit(ask(tokens[..32].to_vec(), 3));
    assert_eq!(again.cached(), 28, "of a prompt that is cached whole, the last page is computed again");
    again.assert_expected();
    let mut longer = engine.submit(ask([&tokens[..37], &[5; 9]].concat(), 3));
    assert_eq!(longer.cached(), 36);
    longer.assert_expected();
    assert!(engine.gate.steps()[before..].iter().flatten().all(|(start, _)| *start >= 28));
    engine.assert_idle();
}

#[test]
fn another_choice_finds_the_whole_prompt_once_the_first_has_a_token() {
    let engine = Engine::start(100, limits());
    let mut first = engine.submit(ask(prompt(1, 23), 30).seeded(1));
    first.token();
    let mut second = engine.submit(ask(prompt(1, 23), 30).seeded(2));
    assert_eq!(second.cached(), 20);
    second.assert_expected();
    first.assert_expected();
    engine.assert_idle();
}

#[test]
fn a_replay_continues_where_the_first_attempt_stopped() {
    let engine = Engine::start(100, limits());
    let whole = ask(prompt(4, 11), 20).seeded(9);
    let expected = whole.expected();
    let mut replay = Ask { tokens: [&whole.tokens[..], &expected[..7]].concat(), generated: 7, ..whole };
    replay.sampling.logprobs = Some(2);
    let mut client = engine.submit(replay);
    assert!(client.token().top.len() == 2);
    assert_eq!(client.finish(), Finish::Length);
    assert_eq!(client.emitted, expected[7..]);
}

#[test]
fn a_cancelled_request_ends_within_a_step_whatever_it_does() {
    let engine = Engine::start(60, Limits { max_batch: 1, ..limits() });
    engine.gate.allow(2);
    let mut decoding = engine.submit(ask(prompt(1, 5), 100));
    decoding.token();
    let mut waiting = engine.submit(ask(prompt(2, 5), 100));
    let mut prefilling = engine.submit(ask(prompt(3, 80), 1).purpose(Purpose::Prefill));
    engine.gate.allow(2);
    prefilling.until(|event| matches!(event, Event::Computed { .. }).then_some(()));
    for client in [&waiting, &prefilling, &decoding] {
        engine.handle.cancel(client.id);
    }
    // The step under way may still end.
    engine.gate.allow(1);
    for client in [&mut waiting, &mut prefilling, &mut decoding] {
        assert_eq!(client.finish(), Finish::Aborted);
    }
    engine.assert_idle();
    engine.handle.cancel(decoding.id);
    engine.gate.open();
    engine.submit(ask(prompt(6, 9), 5)).assert_expected();
}

#[test]
fn a_client_that_went_away_or_ran_out_of_time_is_not_served_on() {
    let engine = Engine::start(60, limits());
    engine.gate.allow(2);
    let mut gone = engine.submit(ask(prompt(1, 5), 500));
    gone.token();
    drop(gone);
    let before = engine.gate.steps().len();
    engine.gate.open();
    engine.assert_idle();
    assert!(engine.gate.steps().len() <= before + 2, "work goes on for nobody");
    let mut late = ask(prompt(2, 5), 500).purpose(Purpose::GenerateRemote);
    late.deadline = Some(std::time::Instant::now());
    assert_eq!(engine.submit(late.clone()).finish(), Finish::Aborted);
    late.deadline = Some(std::time::Instant::now() + Duration::from_millis(30));
    assert_eq!(engine.submit(late).finish(), Finish::Aborted, "noticed though nothing else happens");
    engine.assert_idle();
}

#[test]
fn sequences_end_for_the_reason_they_end() {
    let engine = Engine::start(200, limits());
    let free = ask(prompt(5, 6), 12);
    let output = free.expected();
    let stop = output[5];
    let at = output.iter().position(|token| *token == stop).expect("it is there");
    let mut stopping = free.clone();
    stopping.sampling.stop_token_ids = vec![stop];
    let mut client = engine.submit(stopping.clone());
    assert_eq!(client.finish(), Finish::StopToken(stop));
    assert_eq!(client.emitted, output[..at], "the stop token itself is not emitted");
    stopping.sampling.min_tokens = 12;
    let mut client = engine.submit(stopping);
    assert_eq!(client.finish(), Finish::Length);
    assert!(client.emitted.len() == 12 && !client.emitted.contains(&stop));
    let mut client = engine.submit(ask(prompt(6, 590), 50));
    assert_eq!((client.finish(), client.emitted.len()), (Finish::Length, 10), "the context is full");
    let done = Ask { generated: 2, ..ask(prompt(7, 9), 2) };
    assert_eq!(engine.submit(done).finish(), Finish::Length);
    engine.assert_idle();
}

#[test]
fn a_grammar_confines_the_output_and_ends_it() {
    let engine = Engine::start(50, limits());
    let digits = (0..VOCABULARY as u8).map(|id| (vec![b'0' + id], id == 0));
    let compiler = GrammarCompiler::new(digits, &[0]).expect("vocabulary");
    let (events, receiver) = mpsc::unbounded_channel();
    let plain = ask(prompt(8, 6), 50);
    let mut request = plain.clone().request(events);
    request.grammar = Some(compiler.compile(Kind::Regex, "[34]{7}").expect("regex"));
    let id = engine.handle.submit(request);
    let runtime = Arc::clone(&engine.runtime);
    let mut client = Client { id, ask: plain, events: receiver, runtime, emitted: Vec::new() };
    assert_eq!(client.finish(), Finish::GrammarEnd);
    assert!(client.emitted.len() == 7 && client.emitted.iter().all(|id| [3, 4].contains(id)));
    engine.assert_idle();
}

#[test]
fn what_can_never_run_is_refused_with_its_reason() {
    let engine = Engine::start(20, Limits { max_waiting: 2, max_batch: 1, ..limits() });
    assert_eq!(engine.handle.max_context(), 80);
    let refused = |ask| engine.submit(ask).refusal();
    assert_eq!(refused(ask(prompt(1, 80), 1)), Refusal::TooLong { tokens: 80, context: 80 });
    assert_eq!(refused(ask(Vec::new(), 1)), Refusal::Empty);
    let vocabulary = VOCABULARY;
    assert_eq!(refused(ask(vec![1, 40], 1)), Refusal::Token { token: 40, vocabulary });
    engine.submit(ask(prompt(1, 79), 1)).assert_expected();
    engine.gate.allow(0);
    let mut clients: Vec<Client> = (0..10).map(|n| engine.submit(ask(prompt(n, 9), 3))).collect();
    engine.gate.open();
    let outcomes = clients.iter_mut().map(|client| {
        client.until(|event| match event {
            Event::Finished(_) => Some(true),
            Event::Refused(Refusal::QueueFull { purpose: "generate", .. }) => Some(false),
            _ => None,
        })
    });
    let served = outcomes.filter(|served| *served).count();
    assert!((2..=5).contains(&served), "{served} of 10 were served by a queue of 2");
    engine.assert_idle();
}

#[test]
fn tenants_take_turns() {
    let engine = Engine::start(200, Limits { max_batch: 1, ..limits() });
    engine.gate.allow(0);
    let from = |tenant: &[u8], n| Ask { tenant: tenant.to_vec(), ..ask(prompt(n, 5), 3) };
    let mut many: Vec<Client> = (0..6).map(|n| engine.submit(from(b"many", n))).collect();
    let mut few = engine.submit(from(b"few", 9));
    // One at a time, three steps each: the other tenant's turn is third at the latest.
    engine.gate.allow(10);
    few.assert_expected();
    engine.gate.open();
    many.iter_mut().for_each(Client::assert_expected);
}

#[test]
fn a_lost_device_ends_every_request_with_the_reason() {
    let (mut fake, gate) = Fake::new(50);
    fake.lost_after = Some(8);
    let engine = Engine::over(Box::new(fake), gate, limits());
    let mut running = engine.submit(ask(prompt(1, 5), 100));
    let Refusal::Stopped(reason) = running.refusal() else { panic!("another reason") };
    assert!(reason.contains("unplugged"), "{reason}");
    assert!(matches!(engine.submit(ask(prompt(1, 5), 1)).refusal(), Refusal::Stopped(_)));
    assert!(engine.wait(engine.handle.set_role(Role::Decode, 1)).is_err());
}
