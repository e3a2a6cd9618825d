//! Decoding that stays on the device.

use shoal_cuda::{CudaModel, StepError};
use shoal_model::{LogitRows, SequenceRows};

use crate::drive::{best, device, model, safetensors, tokens, whole};

const STEPS: usize = 80;
const PROMPTS: [usize; 5] = [63, 1, 64, 130, 20];

fn pages(sequence: usize) -> Vec<u32> {
    (0..4).map(|page| (page * PROMPTS.len() + sequence) as u32).collect()
}

/// Prefills every prompt; returns its first token.
fn prefill(model: &mut CudaModel) -> Vec<u32> {
    PROMPTS.iter().enumerate().map(|(s, len)| best(&whole(model, &tokens(s, *len), &pages(s)))).collect()
}

fn decode(model: &mut CudaModel, step: impl Fn(&mut CudaModel) -> Result<(), StepError>) -> Vec<Vec<u32>> {
    let first = prefill(model);
    let pages: Vec<_> = (0..PROMPTS.len()).map(pages).collect();
    let batch: Vec<_> = (0..PROMPTS.len())
        .map(|s| SequenceRows {
            tokens: &first[s..=s],
            start: PROMPTS[s],
            pages: &pages[s],
            logits: LogitRows::Last,
        })
        .collect();
    model.start_greedy(&batch).expect("a start");
    (0..STEPS)
        .map(|_| {
            step(model).expect("a step");
            model.greedy_ids().expect("ids").to_vec()
        })
        .collect()
}

#[test]
fn graphs_write_what_launches_write() {
    for name in ["llama3", "qwen3", "mistral"] {
        let Some(mut model) = device(&safetensors(&model(name))) else { return };
        let eager = decode(&mut model, CudaModel::step_greedy_eagerly);
        assert!(eager.iter().flatten().all(|id| *id < 288), "every id is a token");
        assert_eq!(eager, decode(&mut model, CudaModel::step_greedy), "{name}");
        model.prepare(&[PROMPTS.len()], &[]).expect("prepared");
        let tuned = decode(&mut model, CudaModel::step_greedy);
        println!("{name}: tuned products change the text: {}", tuned != eager);
    }
}

/// Steps enqueued without looking at their ids do the same.
#[test]
fn the_host_need_not_wait_between_steps() {
    let Some(mut model) = device(&safetensors(&model("wide"))) else { return };
    let watched = decode(&mut model, CudaModel::step_greedy);
    let first = prefill(&mut model);
    let pages = pages(2);
    let rows =
        SequenceRows { tokens: &first[2..3], start: PROMPTS[2], pages: &pages, logits: LogitRows::Last };
    model.start_greedy(&[rows]).expect("a start");
    for _ in 0..STEPS {
        model.step_greedy().expect("a step");
    }
    let last = model.greedy_ids().expect("ids")[0];
    let ahead = watched[STEPS - 1][2];
    println!("after {STEPS} steps: {last} alone, {ahead} in company");
}

/// The device's own sequence of ids is the one that its logits give step by step.
#[test]
fn greedy_ids_are_the_largest_logits() {
    let Some(mut model) = device(&safetensors(&model("wide"))) else { return };
    let prompt = tokens(0, 40);
    let pages = [0, 1];
    let mut history = vec![best(&whole(&mut model, &prompt, &pages))];
    let mut logits = Vec::new();
    for step in 0..20 {
        let last = [history[step]];
        let rows = SequenceRows {
            tokens: &last,
            start: prompt.len() + step,
            pages: &pages,
            logits: LogitRows::Last,
        };
        model.forward(&[rows], &mut logits).expect("a step");
        history.push(best(&logits));
    }
    let _ = whole(&mut model, &prompt, &pages);
    let last = [history[0]];
    let rows = SequenceRows { tokens: &last, start: prompt.len(), pages: &pages, logits: LogitRows::Last };
    model.start_greedy(&[rows]).expect("a start");
    for expected in &history[1..] {
        model.step_greedy().expect("a step");
        assert_eq!(model.greedy_ids().expect("ids"), [*expected]);
    }
}

#[test]
fn pages_that_are_full_end_the_decoding_with_an_error() {
    let Some(mut model) = device(&safetensors(&model("wide"))) else { return };
    assert!(matches!(model.step_greedy(), Err(StepError::NotStarted)));
    let (first, pages) = ([1], [4]);
    let rows = SequenceRows { tokens: &first, start: 61, pages: &pages, logits: LogitRows::Last };
    model.start_greedy(&[rows]).expect("a start");
    for _ in 61..64 {
        model.step_greedy().expect("a step");
    }
    let error = model.step_greedy().expect_err("no place for the token");
    assert!(error.to_string().contains("pages"), "{error}");
    let two = SequenceRows { tokens: &[1, 2], ..rows };
    assert!(matches!(model.start_greedy(&[two]), Err(StepError::NotDecode { sequence: 0, tokens: 2 })));
}
