//! Sharing of pages, and what happens to those who break its rules or ask for nonsense.

use shoal_checkpoint::{DType, SyntheticModel};
use shoal_model::{Backend, BackendError, Compute, KvMemory, LoadOptions, LogitRows, SequenceRows, load};

use crate::drive::{Setup, logits_of, synthetic};

fn backend() -> Box<dyn Backend> {
    Setup { page_tokens: 4, pages: 8, ..Setup::FAST }.load(&synthetic(&SyntheticModel::smollm(), DType::Q8_0))
}

fn rows<'a>(tokens: &'a [u32], start: usize, pages: &'a [u32]) -> SequenceRows<'a> {
    SequenceRows { tokens, start, pages, logits: LogitRows::Last }
}

#[test]
fn sequences_share_the_pages_of_a_common_prefix() {
    let mut backend = backend();
    let alone: Vec<Vec<f32>> =
        [8, 9].iter().map(|last| logits_of(backend.as_mut(), &[1, 2, 3, 4, *last])).collect();
    let mut logits = Vec::new();
    backend.forward(&[rows(&[1, 2, 3, 4], 0, &[5])], &mut logits).expect("the prefix");
    let batch = [rows(&[8], 4, &[5, 0]), rows(&[9], 4, &[5, 1])];
    backend.forward(&batch, &mut logits).expect("both continue it");
    assert_eq!(logits, alone.concat());
}

#[test]
fn a_page_in_other_hands_is_refused_and_named() {
    let mut backend = backend();
    let mut logits = Vec::new();
    let batch = [rows(&[1], 0, &[3]), rows(&[2], 0, &[3])];
    let two_writers = backend.forward(&batch, &mut logits);
    assert!(matches!(two_writers, Err(BackendError::PageBusy { page: 3 })));
    let held = backend.arena().read(2).expect("a free page");
    assert!(matches!(
        backend.forward(&[rows(&[1], 0, &[2])], &mut logits),
        Err(BackendError::PageBusy { page: 2 })
    ));
    drop(held);
    backend.forward(&[rows(&[1], 0, &[2])], &mut logits).expect("nothing is held after an error");
    assert!((0..8).all(|page| !backend.arena().is_held(page)));
}

#[test]
fn nonsense_is_refused_with_its_numbers() {
    let mut backend = backend();
    let mut logits = Vec::new();
    let mut message = |rows| backend.forward(&[rows], &mut logits).expect_err("refused").to_string();
    assert_eq!(message(rows(&[288], 0, &[0])), "token 288 is outside the vocabulary of 288");
    assert_eq!(message(rows(&[1, 2], 3, &[0])), "2 tokens at 3 need 2 pages; 1 were given");
    assert_eq!(message(rows(&[], 0, &[0])), "sequence 0 of the batch has no tokens");
    assert_eq!(message(rows(&[1], 0, &[8])), "page 8 is held by someone else");
    assert!(message(rows(&[1], usize::MAX, &[0])).contains("pages"));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let checkpoint = synthetic(&SyntheticModel::smollm(), DType::F32);
    let message = |threads, kv, page_tokens| {
        let options = LoadOptions { compute: Compute::Fast, threads, kv, page_tokens, progress: &|_, _| {} };
        load(&checkpoint, &options).err().expect("refused").to_string()
    };
    assert_eq!(message(0, KvMemory::Pages(1), 64), "threads is 0; allowed: 1 to 256");
    assert_eq!(message(1, KvMemory::Pages(1), 0), "page tokens is 0; allowed: 1 to 1024");
    assert!(message(1, KvMemory::Bytes(100), 64).starts_with("kv memory is Bytes(100); allowed: 1 page ("));
}

#[test]
fn loading_reports_progress_up_to_the_whole_model() {
    let checkpoint = synthetic(&SyntheticModel::llama3(), DType::Q8_0);
    let seen = std::cell::RefCell::new(Vec::new());
    let progress = |loaded, total| seen.borrow_mut().push((loaded, total));
    let kv = KvMemory::Pages(1);
    let options =
        LoadOptions { compute: Compute::Fast, threads: 2, kv, page_tokens: 16, progress: &progress };
    load(&checkpoint, &options).expect("it loads");
    let seen = seen.into_inner();
    assert!(seen.is_sorted() && seen.len() == checkpoint.config().tensors().len());
    assert!(seen.last().is_some_and(|(loaded, total)| loaded == total));
}
