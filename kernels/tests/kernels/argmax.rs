use half::bf16;
use shoal_kernels::{ArgmaxScratch, Buffer, Logits, Queue, argmax, reference};

use crate::device::{Number, Random, poisoned, queue, wide};

fn run<T: Logits + Number>(
    queue: &Queue,
    logits: &[T],
    rows: usize,
    stride: usize,
    vocab: usize,
) -> Vec<u32> {
    let on_device = Buffer::from_host(queue, logits).unwrap();
    let mut ids = poisoned::<u32>(queue, rows);
    let view = on_device.strided(0, rows, vocab, stride).unwrap();
    let mut scratch = ArgmaxScratch::new(queue.gpu(), rows).unwrap();
    argmax(queue, view, &mut scratch, &mut ids.rows_mut(1, rows).unwrap()).unwrap();
    ids.read(queue).unwrap()
}

fn agrees<T: Logits + Number>(queue: &Queue) {
    for (rows, vocab, gap) in [(1, 1, 0), (2, 31, 1), (5, 1009, 3), (256, 49152, 0), (3, 128_256, 0)] {
        let stride = vocab + gap;
        let logits: Vec<T> = Random::new(vocab as u64).numbers(rows * stride, 30.0);
        let want: Vec<u32> =
            logits.chunks(stride).map(|row| reference::argmax(&wide(&row[..vocab]))).collect();
        assert_eq!(run(queue, &logits, rows, stride, vocab), want, "{rows} x {vocab}");
    }
}

#[test]
fn the_largest_logit_wins_in_f32() {
    let Some(queue) = queue() else { return };
    agrees::<f32>(&queue);
}

/// bf16 has so few values that most rows have several equal maxima.
#[test]
fn the_lowest_of_many_equal_maxima_wins_in_bf16() {
    let Some(queue) = queue() else { return };
    agrees::<bf16>(&queue);
}

#[test]
fn nan_never_wins_and_infinities_are_ordered() {
    let Some(queue) = queue() else { return };
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let rows = [[nan, -inf, -inf, nan], [nan, 1.0, inf, inf], [nan; 4], [-3.0, nan, -2.0, -2.0]];
    assert_eq!(run(&queue, &rows.concat(), 4, 4, 4), [1, 2, u32::MAX, 2]);
}
