//! A row's result has the same bits whatever is computed beside it.

use proptest::prelude::*;
use shoal_checkpoint::{Checkpoint, DType, SyntheticModel};
use shoal_model::{Backend, Compute, LogitRows, SequenceRows};

use crate::drive::{Setup, synthetic};

const MAX_TOKENS: usize = 90;
const SEQUENCES: usize = 4;

/// One way to compute some sequences.
#[derive(Debug, Clone)]
struct Plan {
    page_tokens: usize,
    threads: usize,
    lengths: Vec<usize>,
    /// Tokens taken of a sequence in a step, in turn.
    chunks: Vec<usize>,
    /// Order of the pages.
    seed: u64,
}

fn plans() -> impl Strategy<Value = Plan> {
    (
        prop::sample::select(vec![4, 16, 20, 64]),
        prop::sample::select(vec![1, 1, 3]),
        prop::collection::vec(1..=MAX_TOKENS, 1..=SEQUENCES),
        prop::collection::vec(1_usize..=40, 1..8),
        any::<u64>(),
    )
        .prop_map(|(page_tokens, threads, lengths, chunks, seed)| Plan {
            page_tokens,
            threads,
            lengths,
            chunks,
            seed,
        })
}

fn token(sequence: usize, position: usize) -> u32 {
    ((sequence * 101 + position * 53 + position * position * 7) % 288) as u32
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|v| v.to_bits()).collect()
}

/// Logits of the last token, computed token by token on pages in order.
fn alone(checkpoint: &Checkpoint, compute: Compute, plan: &Plan, sequence: usize) -> Vec<u32> {
    let pages: Vec<u32> = (0..MAX_TOKENS.div_ceil(plan.page_tokens) as u32).collect();
    let setup = Setup { compute, threads: 1, pages: pages.len(), page_tokens: plan.page_tokens };
    let mut backend = setup.load(checkpoint);
    let mut logits = Vec::new();
    for start in 0..plan.lengths[sequence] {
        let tokens = [token(sequence, start)];
        let rows = SequenceRows { tokens: &tokens, start, pages: &pages, logits: LogitRows::Last };
        backend.forward(&[rows], &mut logits).expect("a step");
    }
    bits(&logits)
}

/// A permutation of `0..count`.
fn shuffled(count: usize, mut seed: u64) -> Vec<u32> {
    let mut pages: Vec<u32> = (0..count as u32).collect();
    for i in (1..count).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pages.swap(i, (seed >> 33) as usize % (i + 1));
    }
    pages
}

/// Logits of the last token of every sequence, computed in batches of chunks.
fn together(backend: &mut dyn Backend, plan: &Plan) -> Vec<Vec<u32>> {
    let each = MAX_TOKENS.div_ceil(plan.page_tokens);
    let pages = shuffled(each * SEQUENCES, plan.seed);
    let tokens: Vec<Vec<u32>> =
        plan.lengths.iter().enumerate().map(|(s, n)| (0..*n).map(|p| token(s, p)).collect()).collect();
    let (mut done, mut results) = (vec![0; tokens.len()], vec![Vec::new(); tokens.len()]);
    let mut chunks = plan.chunks.iter().cycle();
    while (0..tokens.len()).any(|s| done[s] < tokens[s].len()) {
        let mut batch = Vec::new();
        let mut ending = Vec::new();
        for s in 0..tokens.len() {
            let end = tokens[s].len().min(done[s] + chunks.next().expect("a cycle"));
            if end == done[s] {
                continue;
            }
            let last = end == tokens[s].len();
            let logits = if last { LogitRows::Last } else { LogitRows::None };
            ending.extend(last.then_some(s));
            let pages = &pages[s * each..(s + 1) * each];
            batch.push(SequenceRows { tokens: &tokens[s][done[s]..end], start: done[s], pages, logits });
            done[s] = end;
        }
        let mut logits = Vec::new();
        backend.forward(&batch, &mut logits).expect("a step");
        let rows = logits.chunks_exact(backend.config().vocabulary);
        assert_eq!(rows.len(), ending.len(), "one row for each that asked");
        for (s, row) in ending.into_iter().zip(rows) {
            results[s] = bits(row);
        }
    }
    results
}

fn check(checkpoint: &Checkpoint, compute: Compute, plan: &Plan) -> Result<(), TestCaseError> {
    let pages = MAX_TOKENS.div_ceil(plan.page_tokens) * SEQUENCES;
    let setup = Setup { compute, threads: plan.threads, pages, page_tokens: plan.page_tokens };
    let found = together(setup.load(checkpoint).as_mut(), plan);
    for (sequence, found) in found.into_iter().enumerate() {
        prop_assert_eq!(found, alone(checkpoint, compute, plan, sequence), "sequence {}", sequence);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn quantized_rows_do_not_notice_their_company(plan in plans()) {
        check(&synthetic(&SyntheticModel::smollm(), DType::Q4_1), Compute::Fast, &plan)?;
    }

    #[test]
    fn float_rows_under_a_sliding_window_do_not_notice_their_company(plan in plans()) {
        check(&synthetic(&SyntheticModel::mistral(), DType::F16), Compute::Fast, &plan)?;
    }

    #[test]
    fn rows_of_the_oracle_do_not_notice_their_company(plan in plans()) {
        check(&synthetic(&SyntheticModel::qwen3(), DType::F32), Compute::Reference, &plan)?;
    }
}

#[test]
fn page_size_changes_what_a_page_holds_and_nothing_else_of_note() {
    let checkpoint = synthetic(&SyntheticModel::llama3(), DType::F32);
    let tokens: Vec<u32> = (0..MAX_TOKENS).map(|p| token(0, p)).collect();
    let logits = |page_tokens| {
        let setup = Setup { page_tokens, ..Setup::FAST };
        crate::drive::logits_of(setup.load(&checkpoint).as_mut(), &tokens)
    };
    assert!(crate::drive::relative_error(&logits(5), &logits(64)) < 1e-5);
}
