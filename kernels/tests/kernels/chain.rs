use half::bf16;
use shoal_kernels::{Buffer, Chain, LaunchError, Queue, add_rmsnorm, silu_mul};

use crate::device::{Random, bits, poisoned, queue};

const TOKENS: usize = 33;
const HIDDEN: usize = 2048;

/// Kernels that each read what the one before wrote, so that any overtaking changes the end.
fn layers(
    queue: &Queue,
    x: &mut Buffer<bf16>,
    residual: &mut Buffer<bf16>,
    weight: &Buffer<bf16>,
) -> Result<(), LaunchError> {
    let mut wide = poisoned::<bf16>(queue, TOKENS * HIDDEN);
    for _ in 0..100 {
        let mut target = wide.rows_mut(TOKENS, HIDDEN)?;
        let mut sum = residual.rows_mut(TOKENS, HIDDEN)?;
        add_rmsnorm(
            queue,
            x.strided(0, TOKENS, HIDDEN, HIDDEN)?,
            &mut sum,
            weight.rows(1, HIDDEN)?,
            1e-5,
            &mut target,
        )?;
        silu_mul(queue, wide.rows(TOKENS, HIDDEN)?, &mut x.strided_mut(0, TOKENS, HIDDEN / 2, HIDDEN)?)?;
    }
    queue.synchronize()
}

fn run(queue: &Queue) -> (Vec<bf16>, Vec<bf16>) {
    let mut random = Random::new(11);
    let mut x = Buffer::from_host(queue, &random.numbers::<bf16>(TOKENS * HIDDEN, 1.0)).unwrap();
    let mut residual = Buffer::from_host(queue, &random.numbers::<bf16>(TOKENS * HIDDEN, 1.0)).unwrap();
    let weight = Buffer::from_host(queue, &random.numbers::<bf16>(HIDDEN, 2.0)).unwrap();
    layers(queue, &mut x, &mut residual, &weight).unwrap();
    (x.read(queue).unwrap(), residual.read(queue).unwrap())
}

#[test]
fn kernels_that_overlap_their_launches_compute_the_same_bits() {
    let Some(queue) = queue() else { return };
    let serial = run(&queue);
    assert!(serial.1.iter().all(|x| x.is_finite()), "the chain stays finite");
    for _ in 0..5 {
        let overlapped = run(&queue.chained(Chain::Programmatic));
        assert_eq!(bits(&serial.0), bits(&overlapped.0));
        assert_eq!(bits(&serial.1), bits(&overlapped.1));
    }
}

#[test]
fn a_replayed_graph_computes_the_same_bits_as_its_launches() {
    let Some(queue) = queue() else { return };
    for chain in [Chain::Serial, Chain::Programmatic] {
        let queue = queue.chained(chain);
        let input: Vec<bf16> = Random::new(5).numbers(TOKENS * 2 * HIDDEN, 2.0);
        let mut x = Buffer::from_host(&queue, &input).unwrap();
        let mut y = poisoned::<bf16>(&queue, TOKENS * HIDDEN);
        let mut enqueue = |queue: &Queue| {
            for _ in 0..20 {
                silu_mul(queue, x.rows(TOKENS, 2 * HIDDEN)?, &mut y.rows_mut(TOKENS, HIDDEN)?)?;
                silu_mul(
                    queue,
                    y.rows(TOKENS, HIDDEN)?,
                    &mut x.strided_mut(0, TOKENS, HIDDEN / 2, 2 * HIDDEN)?,
                )?;
            }
            Ok(())
        };
        let graph = queue.capture(&mut enqueue).unwrap();
        graph.replay().unwrap();
        queue.synchronize().unwrap();
        enqueue(&queue).unwrap();
        let direct_after_graph = x.read(&queue).unwrap();

        let mut x = Buffer::from_host(&queue, &input).unwrap();
        let mut y = poisoned::<bf16>(&queue, TOKENS * HIDDEN);
        for _ in 0..40 {
            silu_mul(&queue, x.rows(TOKENS, 2 * HIDDEN).unwrap(), &mut y.rows_mut(TOKENS, HIDDEN).unwrap())
                .unwrap();
            let mut target = x.strided_mut(0, TOKENS, HIDDEN / 2, 2 * HIDDEN).unwrap();
            silu_mul(&queue, y.rows(TOKENS, HIDDEN).unwrap(), &mut target).unwrap();
        }
        assert_eq!(bits(&direct_after_graph), bits(&x.read(&queue).unwrap()), "{chain:?}");
    }
}
