//! Roles and draining: what is admitted changes, what runs does not.

use futures::FutureExt;

use super::*;
use crate::request::Class;
use crate::scheduler::ControlError;

#[test]
fn each_role_admits_its_own_work_and_names_itself_when_it_refuses() {
    let engine = Engine::start(100, limits());
    let admitted = |purpose| {
        let mut client = engine.submit(ask(prompt(1, 9), 2).purpose(purpose));
        let event = client.next();
        engine.handle.cancel(client.id);
        match event {
            Event::Refused(refusal) => Err((refusal.class(), refusal.to_string())),
            _ => Ok(()),
        }
    };
    let all = [Purpose::Generate, Purpose::GenerateRemote, Purpose::Prefill];
    assert!(all.into_iter().all(|purpose| admitted(purpose).is_ok()));
    engine.set_role(Role::Decode, 1).expect("newer");
    assert_eq!(all.map(|purpose| admitted(purpose).is_ok()), [true, true, false]);
    engine.set_role(Role::Prefill, 2).expect("newer");
    assert_eq!(all.map(|purpose| admitted(purpose).is_ok()), [false, false, true]);
    let (class, reason) = admitted(Purpose::Generate).expect_err("prefill only");
    assert_eq!(class, Class::Conflict);
    assert_eq!(reason, "this instance's role is prefill; it does not admit generate work");
    engine.assert_idle();
}

#[test]
fn a_flip_under_load_fails_nothing_and_counts_what_is_left() {
    let engine = Engine::start(200, limits());
    engine.gate.allow(6);
    let mut stream = engine.submit(ask(prompt(1, 9), 60).seeded(3));
    let mut queued: Vec<Client> = (2..9).map(|n| engine.submit(ask(prompt(n, 9), 30))).collect();
    stream.token();
    let mut flip = Box::pin(engine.handle.set_role(Role::Prefill, 5));
    assert!((&mut flip).now_or_never().is_none(), "it is handled between steps");
    engine.gate.open();
    let change = engine.wait(flip).expect("newer");
    assert_eq!((change.role, change.epoch, change.prefill_residue), (Role::Prefill, 5, 0));
    assert!(change.decode_residue > 0, "streams were running");
    let mut prefill = engine.submit(ask(prompt(20, 30), 1).purpose(Purpose::Prefill));
    prefill.token();
    stream.assert_expected();
    queued.iter_mut().for_each(Client::assert_expected);
    let state = engine.state_when(|state| state.decode_residue == 0);
    assert_eq!((state.role, state.epoch, state.prefill_residue), (Role::Prefill, 5, 0));
    let back = engine.set_role(Role::Decode, 6).expect("newer");
    assert_eq!(back.prefill_residue, 1, "its pages wait to be sent");
    engine.handle.release(prefill.id);
    engine.assert_idle();
}

#[test]
fn an_older_epoch_changes_nothing_and_an_equal_one_may_repeat() {
    let engine = Engine::start(20, limits());
    engine.set_role(Role::Decode, 7).expect("newer");
    let stale = ControlError::StaleEpoch { given: 6, accepted: 7 };
    assert_eq!(engine.set_role(Role::Prefill, 6), Err(stale.clone()));
    assert_eq!(engine.wait(engine.handle.drain(false, 6)), Err(stale));
    let state = engine.state_when(|state| state.epoch == 7);
    assert!(state.role == Role::Decode && !state.draining);
    assert!(engine.set_role(Role::Decode, 7).is_ok());
}

#[test]
fn draining_finishes_what_runs_and_can_be_undone() {
    let engine = Engine::start(50, limits());
    let mut running = engine.submit(ask(prompt(1, 5), 40));
    running.token();
    engine.wait(engine.handle.drain(false, 1)).expect("newer");
    assert_eq!(engine.submit(ask(prompt(2, 5), 2)).refusal(), Refusal::Draining);
    running.assert_expected();
    assert_eq!(engine.wait(engine.handle.drain(true, 1)), Ok(0));
    engine.submit(ask(prompt(2, 5), 2)).assert_expected();
    engine.assert_idle();
}

#[test]
fn subscribers_can_follow_the_prefix_cache() {
    use crate::kv::KvEvent;
    let engine = Engine::start(12, limits());
    engine.submit(ask(prompt(1, 20), 2)).assert_expected();
    let mut follow = engine.wait(engine.handle.subscribe()).expect("running");
    let mut known: std::collections::HashSet<_> = follow.snapshot.iter().copied().collect();
    assert_eq!(known, keyer().chain(&prompt(1, 20)).into_iter().collect());
    engine.submit(ask(prompt(2, 36), 2)).assert_expected();
    engine.assert_idle();
    while let Ok(event) = follow.events.try_recv() {
        match event {
            KvEvent::Stored(keys) => keys.iter().for_each(|key| assert!(known.insert(*key))),
            KvEvent::Removed(keys) => keys.iter().for_each(|key| assert!(known.remove(key))),
        }
    }
    let now = engine.wait(engine.handle.subscribe()).expect("running").snapshot;
    assert_eq!(known, now.into_iter().collect());
    assert!(known.is_superset(&keyer().chain(&prompt(2, 36)).into_iter().collect()));
}

#[test]
fn rates_are_known_from_the_start_and_an_idle_scheduler_does_not_spin() {
    let engine = Engine::start(20, limits());
    let state = engine.state_when(|state| state.load.prefill_rate > 0.0);
    assert!(state.load.decode_rate > 0.0);
    assert_eq!(engine.gate.steps().len(), 3, "two prompts and a token to warm up, and nothing else");
}
