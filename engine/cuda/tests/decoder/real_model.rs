//! `SmolLM2` from its file, where there is one: `SHOAL_TEST_MODEL` names it.

use shoal_checkpoint::Checkpoint;
use shoal_model::{Compute, KvMemory, LoadOptions, LogitRows, SequenceRows, load};

use crate::drive::{best, device, gap, relative_error};

/// Thirty layers round more often than a synthetic model's few: the worst row of 64, and the middle one.
const WORST: f64 = 0.08;
const MIDDLE: f64 = 0.03;

/// "The capital of France is" and 64 tokens more: the oracle's tokens are fed to both.
#[test]
fn a_real_model_writes_what_the_oracle_writes() {
    let Some(path) = std::env::var_os("SHOAL_TEST_MODEL") else {
        eprintln!("skipped: SHOAL_TEST_MODEL names no model file");
        return;
    };
    let checkpoint = Checkpoint::open(&path).expect("it opens");
    let Some(mut model) = device(&checkpoint) else { return };
    let options = LoadOptions {
        compute: Compute::Reference,
        threads: 1,
        kv: KvMemory::Pages(4),
        page_tokens: 64,
        progress: &|_, _| {},
    };
    let mut oracle = load(&checkpoint, &options).expect("it loads");
    let mut history: Vec<u32> = vec![504, 3575, 282, 4649, 314];
    let (mut exact, mut found, pages) = (Vec::new(), Vec::new(), [0, 1]);
    let (mut errors, mut done, mut different) = (Vec::new(), 0, None);
    while history.len() < 69 {
        let rows =
            SequenceRows { tokens: &history[done..], start: done, pages: &pages, logits: LogitRows::Last };
        oracle.forward(&[rows], &mut exact).expect("a step");
        model.forward(&[rows], &mut found).expect("a step");
        done = history.len();
        errors.push(relative_error(&found, &exact));
        let (chosen, token) = (best(&found), best(&exact));
        if chosen != token && different.is_none() {
            different = Some((done, gap(&exact, chosen)));
        }
        history.push(token);
    }
    errors.sort_by(f64::total_cmp);
    let (middle, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
    println!(
        "SmolLM2: logits within {worst:.2e}, {middle:.2e} in the middle; first difference (position, gap) {different:?}"
    );
    println!("SmolLM2: {:?}", &history[5..]);
    assert!(middle < MIDDLE && worst < WORST, "logits differ by {middle}, at worst {worst}");
    assert!(different.is_none_or(|(_, gap)| gap < WORST), "{different:?} is no near tie");
}
