use shoal_kernels::{ArgmaxScratch, Buffer, Draws, Queue, draw, reference};

use crate::device::{Random, poisoned, queue, wide};

/// Numbers of draws beside each other, as [`Draws`] has them.
struct Numbers {
    temperatures: Vec<f32>,
    indices: Vec<u32>,
    seeds: Vec<u64>,
}

impl Numbers {
    fn of(rows: usize, temperature: impl Fn(usize) -> f32) -> Self {
        Self {
            temperatures: (0..rows).map(temperature).collect(),
            indices: (0..rows as u32).map(|row| row % 3 * 1000 + row).collect(),
            seeds: (0..rows as u64).map(|row| row % 5 * 0x0123_4567_89ab_cdef).collect(),
        }
    }

    /// Row by row the value whose largest wins.
    fn values(&self, logits: &[f32], vocab: usize) -> Vec<Vec<f64>> {
        let row = |(row, logits): (usize, &[f32])| {
            let temperature = f64::from(self.temperatures[row]);
            let noisy = |(token, logit): (usize, f64)| {
                logit / temperature + reference::gumbel(self.seeds[row], self.indices[row], token as u32)
            };
            let exact = wide(logits);
            if temperature == 0.0 { exact } else { exact.into_iter().enumerate().map(noisy).collect() }
        };
        logits.chunks(vocab).enumerate().map(row).collect()
    }

    fn run(&self, queue: &Queue, logits: &[f32], vocab: usize) -> Vec<u32> {
        let rows = self.seeds.len();
        let upload = |numbers: Vec<u32>| Buffer::from_host(queue, &numbers).unwrap();
        let temperatures = upload(self.temperatures.iter().map(|t| t.to_bits()).collect());
        let indices = upload(self.indices.clone());
        let low = upload(self.seeds.iter().map(|seed| *seed as u32).collect());
        let high = upload(self.seeds.iter().map(|seed| (*seed >> 32) as u32).collect());
        let view = |numbers| Buffer::rows(numbers, 1, rows).unwrap();
        let draws = Draws {
            temperatures: view(&temperatures),
            indices: view(&indices),
            seeds: [view(&low), view(&high)],
        };
        let logits = Buffer::from_host(queue, logits).unwrap();
        let mut scratch = ArgmaxScratch::new(queue.gpu(), rows).unwrap();
        let mut ids = poisoned::<u32>(queue, rows);
        let mut out = ids.rows_mut(1, rows).unwrap();
        draw(queue, logits.rows(rows, vocab).unwrap(), draws, &mut scratch, &mut out).unwrap();
        ids.read(queue).unwrap()
    }
}

#[test]
fn the_largest_noisy_logit_wins() {
    let Some(queue) = queue() else { return };
    for (rows, vocab) in [(1, 1), (7, 31), (64, 1009), (20, 49152), (3, 128_256)] {
        let logits: Vec<f32> = Random::new(vocab as u64).numbers(rows * vocab, 6.0);
        let numbers = Numbers::of(rows, |row| [0.0, 0.3, 1.0, 2.5][row % 4]);
        let values = numbers.values(&logits, vocab);
        let drawn = numbers.run(&queue, &logits, vocab);
        for (row, (values, id)) in values.iter().zip(&drawn).enumerate() {
            let best = values[reference::argmax(values) as usize];
            let behind = best - values[*id as usize];
            // f32 beside f64: only what is as good as the best may take its place.
            assert!(
                behind <= 1e-5 * best.abs() + 1e-5,
                "{rows} x {vocab}, row {row}: {id} is {behind} behind"
            );
        }
        assert_eq!(drawn, numbers.run(&queue, &logits, vocab), "twice the same");
    }
}

/// Counts of 40,000 draws lie as the softmax at the temperature has them: chi-squared over seven tokens, whose 6
/// degrees of freedom exceed 27.9 once in ten thousand.
#[test]
fn draws_are_distributed_as_the_softmax() {
    let Some(queue) = queue() else { return };
    let (rows, vocab, temperature) = (40_000, 7, 0.7_f32);
    let row = [0.0_f32, 1.5, -2.0, 0.3, 0.31, -0.7, 2.1];
    let mut numbers = Numbers::of(rows, |_| temperature);
    numbers.seeds.fill(11);
    numbers.indices = (0..rows as u32).collect();
    let drawn = numbers.run(&queue, &row.repeat(rows), vocab);
    let weights = row.map(|logit| f64::from(logit / temperature).exp());
    let total: f64 = weights.iter().sum();
    let chi: f64 = (0..vocab)
        .map(|token| {
            let expected = rows as f64 * weights[token] / total;
            let seen = drawn.iter().filter(|id| **id == token as u32).count() as f64;
            (seen - expected).powi(2) / expected
        })
        .sum();
    assert!(chi < 27.9, "chi-squared {chi}");
}

#[test]
fn nan_never_wins_a_draw() {
    let Some(queue) = queue() else { return };
    let nan = f32::NAN;
    let numbers = Numbers::of(2, |_| 1.0);
    assert_eq!(numbers.run(&queue, &[nan, nan, 1.0, nan, nan, nan, nan, nan], 4), [2, u32::MAX]);
}
