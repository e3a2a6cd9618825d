//! The scheduler over the real decoder: what else is computed never changes a bit.

use shoal_checkpoint::{Checkpoint, DType, SyntheticModel};
use shoal_model::{Compute, KvMemory, LoadOptions, load};

use super::*;

fn backend(model: &SyntheticModel, compute: Compute, pages: usize) -> Box<dyn Backend> {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("model.gguf");
    model.write_gguf(&path, DType::Q8_0).expect("written");
    let checkpoint = Checkpoint::open(&path).expect("a valid model");
    let kv = KvMemory::Pages(pages);
    load(
        &checkpoint,
        &LoadOptions { compute, threads: 1, kv, page_tokens: PAGE_TOKENS, progress: &|_, _| {} },
    )
    .expect("loads")
}

fn asks() -> impl Iterator<Item = Ask> {
    (0..6).map(|n| {
        let mut ask = ask(prompt(n, 10 + 7 * n as usize), 30).seeded(u64::from(n));
        ask.sampling.logprobs = Some(3);
        ask
    })
}

/// Every token with its log-probabilities, to the bit.
fn outputs(engine: &Engine, at_once: bool) -> Vec<Vec<SampledToken>> {
    let finish = |mut client: Client| {
        let mut tokens = Vec::new();
        let end = client.until(|event| match event {
            Event::Token(token) => {
                tokens.push(token);
                None
            }
            Event::Finished(finish) => Some(finish),
            _ => None,
        });
        assert_eq!(end, Finish::Length);
        tokens
    };
    if at_once {
        let clients: Vec<Client> = asks().map(|ask| engine.submit(ask)).collect();
        clients.into_iter().map(finish).collect()
    } else {
        asks().map(|ask| finish(engine.submit(ask))).collect()
    }
}

#[test]
fn batches_chunks_and_preemptions_leave_tokens_and_logprobs_as_they_are() {
    for model in [SyntheticModel::smollm(), SyntheticModel::qwen3(), SyntheticModel::mistral()] {
        for compute in [Compute::Fast, Compute::Reference] {
            let calm = Limits { max_batch: 1, chunk: 600, ..limits() };
            let alone = Engine::over(backend(&model, compute, 200), Arc::default(), calm);
            let expected = outputs(&alone, false);
            let busy = Engine::over(backend(&model, compute, 36), Arc::default(), limits());
            assert_eq!(outputs(&busy, true), expected, "{} {compute:?}", model.name);
            let preemptions = busy.state_when(|state| state.in_flight == 0).load.preemptions;
            assert!(preemptions > 0, "the pool was never full");
            busy.assert_idle();
        }
    }
}

#[test]
fn prefill_here_and_decode_there_are_equal_to_the_bit() {
    let model = SyntheticModel::smollm();
    let engine =
        |role| Engine::over(backend(&model, Compute::Fast, 200), Arc::default(), Limits { role, ..limits() });
    let expected = outputs(&engine(Role::Mixed), false);
    let (prefill, decode) = (engine(Role::Prefill), engine(Role::Decode));
    for (ask, expected) in asks().zip(expected) {
        let mut owner = decode.submit(ask.clone().purpose(Purpose::GenerateRemote));
        let token = remote::hand_over(&prefill, &decode, &ask, &mut owner);
        assert_eq!(token, expected[0]);
        decode.handle.filled(owner.id, Some(token), 0);
        let mut output = Vec::new();
        while output.len() < expected.len() {
            output.push(owner.token());
        }
        assert_eq!(output, expected);
    }
    prefill.assert_idle();
}
