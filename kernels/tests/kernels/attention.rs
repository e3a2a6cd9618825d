use half::{bf16, f16};
use shoal_kernels::{Buffer, Decode, KvElement, Prefill, Queue, decode_attention, prefill_attention};

use crate::cache::{Cache, LAYER};
use crate::device::{Number, Random, assert_close, bits, poisoned, queue};

/// `[q heads, kv heads, head dimension]`: one head, `SmolLM`, Llama-8B, a group of 8, a group past one block's 8.
const SHAPES: [[usize; 3]; 5] = [[1, 1, 64], [9, 3, 64], [32, 8, 128], [16, 2, 128], [22, 2, 64]];
const WINDOWS: [Option<u32>; 4] = [None, Some(1), Some(64), Some(100)];

/// Scores are spread enough that a few tokens carry most of the weight.
fn scale(dim: usize) -> f32 {
    2.0 / (dim as f32).sqrt()
}

fn decode<T: KvElement + Number>(queue: &Queue, lengths: &[usize], shape: [usize; 3], splits: usize) {
    let [q_heads, kv_heads, dim] = shape;
    let batch = lengths.len();
    let cache = Cache::<T>::new(queue, lengths, kv_heads, dim);
    let q: Vec<bf16> = Random::new(batch as u64).numbers(batch * q_heads * dim, 2.0);
    let on_device = Buffer::from_host(queue, &q).unwrap();
    for window in WINDOWS {
        let step = Decode {
            q: on_device.rows(batch, q_heads * dim).unwrap(),
            table: cache.table(),
            layer: LAYER,
            scale: scale(dim),
            window,
            splits,
        };
        let run = || {
            let mut out = poisoned::<bf16>(queue, batch * q_heads * dim);
            let mut target = out.rows_mut(batch, q_heads * dim).unwrap();
            decode_attention(queue, &step, &cache.pages, &mut target).unwrap();
            out.read(queue).unwrap()
        };
        let want: Vec<f64> = (0..batch * q_heads)
            .flat_map(|row| {
                let (sequence, head) = (row / q_heads, row % q_heads);
                let end = lengths[sequence];
                let first = window.map_or(0, |window| end.saturating_sub(window as usize));
                let q = &q[row * dim..][..dim];
                cache.attend(sequence, head * kv_heads / q_heads, q, first..end, scale(dim).into())
            })
            .collect();
        let got = run();
        let name =
            format!("decode {} {shape:?} {lengths:?} /{splits} {window:?}", std::any::type_name::<T>());
        // Weights are rounded to the pages' type before they meet the values.
        assert_close(&name, &got, &want, 1.0 / 100.0, 1e-2);
        assert_eq!(bits(&got), bits(&run()), "{name}: twice the same");
    }
}

#[test]
fn decode_attends_to_ragged_sequences_in_one_block_each() {
    let Some(queue) = queue() else { return };
    for shape in SHAPES {
        decode::<bf16>(&queue, &[1, 63, 64, 65, 0, 257, 1009], shape, 1);
        decode::<f16>(&queue, &[2, 128, 129, 640], shape, 1);
    }
}

#[test]
fn decode_attends_to_ragged_sequences_in_clusters() {
    let Some(queue) = queue() else { return };
    for shape in SHAPES {
        for splits in [2, 4, 8] {
            decode::<bf16>(&queue, &[1, 63, 64, 65, 0, 257, 1009], shape, splits);
            decode::<f16>(&queue, &[2, 128, 129, 640], shape, splits);
        }
    }
}

#[test]
fn decode_attends_to_one_token_and_to_many() {
    let Some(queue) = queue() else { return };
    decode::<f16>(&queue, &[1], [32, 8, 128], 4);
    decode::<bf16>(&queue, &[20011], [8, 1, 128], 8);
}

/// Runs of new tokens as (new, all) per sequence.
fn prefill<T: KvElement + Number>(
    queue: &Queue,
    runs: &[(usize, usize)],
    shape: [usize; 3],
    windows: &[Option<u32>],
) {
    let [q_heads, kv_heads, dim] = shape;
    let lengths: Vec<usize> = runs.iter().map(|(_, all)| *all).collect();
    let cache = Cache::<T>::new(queue, &lengths, kv_heads, dim);
    let mut starts = vec![0_u32];
    starts.extend(runs.iter().scan(0, |end, (new, _)| {
        *end += *new as u32;
        Some(*end)
    }));
    let tokens = starts[runs.len()] as usize;
    let q: Vec<bf16> = Random::new(tokens as u64).numbers(tokens * q_heads * dim, 2.0);
    let on_device = Buffer::from_host(queue, &q).unwrap();
    let start = Buffer::from_host(queue, &starts).unwrap();
    for window in windows {
        let step = Prefill {
            q: on_device.rows(tokens, q_heads * dim).unwrap(),
            start: start.rows(1, runs.len() + 1).unwrap(),
            longest: runs.iter().map(|(new, _)| *new).max().unwrap(),
            table: cache.table(),
            layer: LAYER,
            scale: scale(dim),
            window: *window,
        };
        let run = || {
            let mut out = poisoned::<bf16>(queue, tokens * q_heads * dim);
            let mut target = out.rows_mut(tokens, q_heads * dim).unwrap();
            prefill_attention(queue, &step, &cache.pages, &mut target).unwrap();
            out.read(queue).unwrap()
        };
        let mut want = Vec::new();
        for (sequence, (new, all)) in runs.iter().enumerate() {
            for (row, head) in (0..*new).flat_map(|row| (0..q_heads).map(move |head| (row, head))) {
                let end = all - new + row + 1;
                let first = window.map_or(0, |window| end.saturating_sub(window as usize));
                let at = ((starts[sequence] as usize + row) * q_heads + head) * dim;
                let (kv_head, scale) = (head * kv_heads / q_heads, scale(dim).into());
                want.extend(cache.attend(sequence, kv_head, &q[at..at + dim], first..end, scale));
            }
        }
        let got = run();
        let name = format!("prefill {} {shape:?} {runs:?} {window:?}", std::any::type_name::<T>());
        // Weights are rounded to the pages' type before they meet the values.
        assert_close(&name, &got, &want, 1.0 / 100.0, 1e-2);
        assert_eq!(bits(&got), bits(&run()), "{name}: twice the same");
    }
}

#[test]
fn prefill_attends_causally_to_ragged_runs_with_and_without_a_prefix() {
    let Some(queue) = queue() else { return };
    let runs = [(1, 1), (1, 65), (17, 17), (64, 64), (65, 200), (128, 128), (3, 515), (0, 7)];
    for shape in SHAPES {
        prefill::<bf16>(&queue, &runs, shape, &WINDOWS);
        prefill::<f16>(&queue, &runs[2..6], shape, &WINDOWS);
    }
}

#[test]
fn prefill_attends_to_a_long_prompt() {
    let Some(queue) = queue() else { return };
    for dim in [64, 128] {
        prefill::<bf16>(&queue, &[(1, 1), (1031, 1301)], [4, 1, dim], &[None, Some(512)]);
        let windows = [None, Some(1), Some(64), Some(1000)];
        prefill::<bf16>(&queue, &[(257, 4096), (2, 2)], [2, 1, dim], &windows);
    }
}
