//! Instances on a GPU: the same server, scheduler and transfer over another backend.
//!
//! Without a GPU each test says what was missing and passes; `SHOAL_REQUIRE_GPU=1` makes that a failure.

use shoal_checkpoint::Checkpoint;
use shoal_cuda::{CudaBackend, CudaOptions};
use shoal_engine::scheduler::Role;
use shoal_model::KvMemory;

use crate::fleet::{Device, Engine, Shape, Weights, greedy, prompt, request, run, seeded};

fn missing() -> bool {
    let checkpoint = Checkpoint::open(Weights::Wide.path()).expect("a valid model");
    let options = CudaOptions { kv: KvMemory::Pages(1), ..CudaOptions::default() };
    match CudaBackend::load(&checkpoint, &options) {
        Ok(_) => false,
        Err(lack) if std::env::var_os("SHOAL_REQUIRE_GPU").is_some_and(|value| value == "1") => {
            panic!("{lack}")
        }
        Err(lack) => {
            eprintln!("skipped: {lack}");
            true
        }
    }
}

async fn on_gpu(name: &str, role: Role) -> Engine {
    Engine::shaped(name, Shape { weights: Weights::Wide, device: Device::Gpu, ..Shape::of(role) }).await
}

/// A prompt goes through the same chunks wherever it is computed, and a stream alone through the same kernels.
#[tokio::test(flavor = "multi_thread")]
async fn prefill_and_decode_on_gpus_write_what_one_engine_writes() {
    if missing() {
        return;
    }
    let (p, d, mixed) =
        (on_gpu("p", Role::Prefill).await, on_gpu("d", Role::Decode).await, on_gpu("m", Role::Mixed).await);
    for (salt, length) in (10..).zip([1_usize, 63, 64, 65, 128, 513]) {
        for sampling in [greedy(12), seeded(12)] {
            let ask = |prefill: &[&Engine]| {
                let mut tokens = prompt(salt, length);
                tokens[0] += u32::from(sampling.temperature > 0.0);
                request("a", tokens, sampling.clone(), prefill)
            };
            let expected = run(&mixed, ask(&[])).await.expect("it runs");
            let output = run(&d, ask(&[&p])).await.expect("it runs");
            assert_eq!(output.ids(), expected.ids(), "{length} tokens");
            let started = output.started();
            assert_eq!((started.prefilled_by.as_str(), started.kv_tokens_received as usize), ("p", length));
        }
    }
    for engine in [p, d, mixed] {
        engine.quiet().await;
        engine.stop().await;
    }
}

/// Many streams, a pool too small for all: queues, preemption and the prefix cache at work.
#[tokio::test(flavor = "multi_thread")]
async fn streams_end_and_leave_nothing_behind() {
    if missing() {
        return;
    }
    let (p, d) = (on_gpu("p", Role::Prefill).await, on_gpu("d", Role::Mixed).await);
    let ask = |i: u32| {
        let prefill: &[&Engine] = if i.is_multiple_of(2) { &[&p] } else { &[] };
        request(&format!("r{i}"), prompt(i % 5, 20 + 13 * i as usize), greedy(30), prefill)
    };
    let outputs = futures::future::join_all((0..24).map(|i| run(&d, ask(i)))).await;
    for output in outputs {
        assert_eq!(output.expect("it runs").tokens.len(), 30);
    }
    let moved = |engine: &Engine| engine.instance.state().load.expect("a load").kv_bytes_sent;
    assert!(moved(&p) > 0, "some prompts were computed by the peer");
    for engine in [p, d] {
        engine.quiet().await;
        engine.stop().await;
    }
}
