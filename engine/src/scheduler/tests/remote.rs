//! Prompts that a peer computes, and prompts computed for a peer.

use super::*;

/// Puts into the slots what a peer's prefill of `tokens` would send.
fn fill(engine: &Engine, tokens: &[u32], first_token: usize, slots: &[Slot]) {
    for (slot, page) in slots.iter().zip(first_token / PAGE_TOKENS..) {
        let mut memory = engine.arena.write(slot.page).expect("reserved for us");
        assert!(engine.handle.generations().is_current(*slot));
        let start = page * PAGE_TOKENS;
        for (position, token) in tokens.iter().enumerate().skip(start).take(PAGE_TOKENS) {
            let at = (position - start) * 8;
            memory[at..at + 8].copy_from_slice(&entry(*token, position));
        }
    }
}

/// Computes the prompt on one engine and copies its pages into what the owner reserved on the other.
pub(super) fn hand_over(prefill: &Engine, decode: &Engine, ask: &Ask, owner: &mut Client) -> SampledToken {
    let (first, slots) = owner.reserved();
    let mut peer = prefill.submit(ask.clone().purpose(Purpose::Prefill));
    let mut computed = Vec::new();
    let token = peer.until(|event| match event {
        Event::Computed { pages, .. } => {
            computed = pages;
            None
        }
        Event::Token(token) => Some(token),
        _ => None,
    });
    for (from, to) in computed[first / PAGE_TOKENS..].iter().zip(&slots) {
        let source = prefill.arena.read(from.page).expect("final");
        decode.arena.write(to.page).expect("reserved").copy_from_slice(&source);
    }
    prefill.handle.release(peer.id);
    token
}

fn first_token(ask: &Ask) -> SampledToken {
    SampledToken { id: ask.expected()[0], logprob: None, top: Vec::new() }
}

#[test]
fn a_prompt_filled_by_a_peer_continues_as_if_it_were_computed_here() {
    for engine in Engine::both(300, limits()) {
        for length in [1, 3, 4, 5, 16, 33] {
            let ask = ask(prompt(length, length as usize), 12).seeded(5).purpose(Purpose::GenerateRemote);
            let mut client = engine.submit(ask.clone());
            let (first, slots) = client.reserved();
            assert_eq!((first, slots.len()), (0, (length as usize).div_ceil(PAGE_TOKENS)));
            fill(&engine, &ask.tokens, first, &slots);
            engine.handle.filled(client.id, Some(first_token(&ask)), 3);
            assert_eq!(client.cached(), 3, "what the peer reported");
            client.assert_expected();
            assert!(
                slots.iter().all(|slot| !engine.handle.generations().is_current(*slot)),
                "late frames land nowhere"
            );
        }
        engine.assert_idle();
    }
}

#[test]
fn only_pages_that_are_not_cached_are_reserved() {
    for engine in Engine::both(100, limits()) {
        let tokens = prompt(3, 30);
        engine.submit(ask(tokens[..17].to_vec(), 1)).assert_expected();
        let ask = ask(tokens, 8).purpose(Purpose::GenerateRemote);
        let mut client = engine.submit(ask.clone());
        let (first, slots) = client.reserved();
        assert_eq!((first, slots.len()), (16, 4));
        fill(&engine, &ask.tokens, first, &slots);
        engine.handle.filled(client.id, Some(first_token(&ask)), first);
        client.assert_expected();
        engine.assert_idle();
    }
}

#[test]
fn a_retry_gets_new_generations_and_no_page_that_is_still_written() {
    let engine = Engine::start(40, limits());
    let ask = ask(prompt(4, 18), 9).purpose(Purpose::GenerateRemote);
    let mut client = engine.submit(ask.clone());
    let (first, old) = client.reserved();
    let late = engine.arena.write(old[1].page).expect("reserved for us");
    engine.handle.fill_failed(client.id);
    let (again, new) = client.reserved();
    assert_eq!((first, again, new.len()), (0, 0, old.len()));
    assert!(old.iter().all(|slot| !engine.handle.generations().is_current(*slot)));
    assert!(new.iter().all(|slot| engine.handle.generations().is_current(*slot)));
    assert!(new.iter().all(|slot| slot.page != old[1].page), "a page that is still written is not reused");
    fill(&engine, &ask.tokens, again, &new);
    engine.handle.filled(client.id, Some(first_token(&ask)), 0);
    client.assert_expected();
    engine.state_when(|state| state.in_flight == 0 && state.pages_borrowed == 1);
    drop(late);
    engine.assert_idle();
}

#[test]
fn what_did_not_land_is_computed_here() {
    let tokens = prompt(5, 18);
    let cases = [0, 1, 4, 9, 16, 18, usize::MAX]
        .into_iter()
        .flat_map(|valid| Engine::both(40, limits()).map(|e| (valid, e)));
    for (valid, engine) in cases {
        let ask = ask(tokens.clone(), 9).seeded(2).purpose(Purpose::GenerateRemote);
        let mut client = engine.submit(ask.clone());
        let (first, slots) = client.reserved();
        let landed = valid.min(tokens.len());
        fill(&engine, &tokens[..landed], first, &slots[..landed.div_ceil(PAGE_TOKENS)]);
        let late = (landed < tokens.len()).then(|| engine.arena.write(slots[4].page).expect("reserved"));
        let before = engine.gate.steps().len();
        engine.handle.fill_locally(client.id, valid);
        client.assert_expected();
        let kept = if landed == 18 { 17 } else { landed / PAGE_TOKENS * PAGE_TOKENS };
        assert_eq!(engine.gate.steps()[before][0].0, kept, "{valid} tokens had landed");
        drop(late);
        engine.assert_idle();
    }
}

#[test]
fn reservations_end_in_every_way_without_a_leak() {
    let engine = Engine::start(40, limits());
    let remote = |n| ask(prompt(n, 18), 9).purpose(Purpose::GenerateRemote);
    let mut cancelled = engine.submit(remote(1));
    cancelled.reserved();
    engine.handle.cancel(cancelled.id);
    assert_eq!(cancelled.finish(), Finish::Aborted);
    let mut gone = engine.submit(remote(2));
    gone.reserved();
    let id = gone.id;
    drop(gone);
    engine.assert_idle();
    engine.handle.filled(id, Some(first_token(&remote(2))), 0);
    engine.handle.fill_failed(id);
    engine.handle.fill_locally(id, 3);
    engine.handle.release(id);
    let mut ended = engine.submit(remote(3));
    let (first, slots) = ended.reserved();
    fill(&engine, &remote(3).tokens, first, &slots);
    engine.handle.filled(ended.id, None, 0);
    assert_eq!(ended.finish(), Finish::GrammarEnd);
    engine.assert_idle();
}

#[test]
fn reservations_leave_room_for_prefills_that_peers_wait_for() {
    let engine = Engine::start(20, Limits { max_batch: 16, ..limits() });
    let clients: Vec<Client> =
        (0..6).map(|n| engine.submit(ask(prompt(n, 9), 9).purpose(Purpose::GenerateRemote))).collect();
    let mut peer = engine.submit(ask(prompt(9, 36), 1).purpose(Purpose::Prefill));
    peer.token();
    drop((clients, peer));
    engine.assert_idle();
}

#[test]
fn computed_pages_stay_until_they_are_released() {
    for engine in Engine::both(30, limits()) {
        let ask = ask(prompt(6, 30), 1).purpose(Purpose::Prefill);
        let mut client = engine.submit(ask.clone());
        let mut reports = Vec::new();
        let first = client.until(|event| match event {
            Event::Computed { done, pages } => {
                reports.push((done, pages));
                None
            }
            Event::Token(token) => Some(token),
            _ => None,
        });
        assert_eq!(first.id, ask.expected()[0]);
        assert_eq!(reports.iter().map(|(done, _)| *done).collect::<Vec<_>>(), [8, 16, 24, 30]);
        // Others use up the rest of the pool meanwhile.
        for n in 10..14 {
            engine.submit(super::ask(prompt(n, 20), 10)).assert_expected();
        }
        let (_, slots) = reports.pop().expect("at least one");
        for (position, token) in ask.tokens.iter().enumerate() {
            let slot = slots[position / PAGE_TOKENS];
            let page = engine.arena.read(slot.page).expect("final");
            assert!(engine.handle.generations().is_current(slot));
            let at = position % PAGE_TOKENS * 8;
            assert_eq!(page[at..at + 8], entry(*token, position));
        }
        engine.handle.release(client.id);
        engine.assert_idle();
        let mut again = engine.submit(super::ask(ask.tokens, 1));
        assert_eq!(again.cached(), 28, "its pages are cached for the next prompt");
        again.assert_expected();
    }
}

#[test]
fn prefill_here_and_decode_there_equals_both_here() {
    let prefills = Engine::both(200, Limits { role: Role::Prefill, chunk: 16, ..limits() });
    let decodes = Engine::both(200, Limits { role: Role::Decode, ..limits() });
    for (prefill, decode) in prefills.iter().zip(&decodes) {
        for (n, length) in [1, 4, 15, 16, 17, 64, 130].into_iter().enumerate() {
            let ask = ask(prompt(n as u32, length), 15).seeded(n as u64);
            let mut owner = decode.submit(ask.clone().purpose(Purpose::GenerateRemote));
            let token = hand_over(prefill, decode, &ask, &mut owner);
            decode.handle.filled(owner.id, Some(token), 0);
            owner.assert_expected();
        }
        prefill.assert_idle();
        decode.assert_idle();
    }
}

/// The first peer still reads the pages when the second one asks for the same prompt.
#[test]
fn a_prompt_that_two_peers_want_is_published_while_it_is_sent() {
    for engine in Engine::both(30, limits()) {
        let ask = ask(prompt(7, 18), 1).purpose(Purpose::Prefill);
        let mut first = engine.submit(ask.clone());
        let mut slots = Vec::new();
        first.until(|event| match event {
            Event::Computed { pages, .. } => {
                slots = pages;
                None
            }
            Event::Token(token) => Some(token),
            _ => None,
        });
        let sending: Vec<_> =
            slots.iter().map(|slot| engine.arena.read(slot.page).expect("published")).collect();
        let mut second = engine.submit(ask.clone());
        assert_eq!(second.token().id, ask.expected()[0], "nobody waits for a page that is being sent");
        drop(sending);
        engine.handle.release(first.id);
        engine.handle.release(second.id);
        engine.assert_idle();
    }
}
