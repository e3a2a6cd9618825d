//! `SmolLM2` from its file, where there is one: `SHOAL_TEST_MODEL` names it.

use shoal_checkpoint::Checkpoint;
use shoal_cuda::CudaModel;
use shoal_model::{Backend, LogitRows, SequenceRows};

use crate::drive::{best, device, oracle, relative_error};

/// Thirty layers round more often than a synthetic model's few: the worst of all rows, and the middle one of a prompt.
const WORST: f64 = 0.1;
const MIDDLE: f64 = 0.03;
/// Logits that the oracle puts this close together may change places.
const NEAR_TIE: f64 = 0.15;
const TOKENS: usize = 64;

/// What the model's vocabulary makes of each prompt.
const PROMPTS: [(&str, &[u32]); 8] = [
    ("The capital of France is", &[504, 3575, 282, 4649, 314]),
    ("Hello 1234 world", &[19556, 216, 33, 34, 35, 36, 905]),
    ("Once upon a time", &[6403, 1980, 253, 655]),
    ("The three laws of robotics are", &[504, 1296, 3707, 282, 18479, 359]),
    ("Water boils at 100 degrees because", &[12615, 36411, 418, 216, 33, 32, 32, 5027, 975]),
    ("def fibonacci(n):", &[1604, 3987, 46477, 24, 94, 727]),
    ("My favourite recipe for bread:", &[5965, 20334, 11594, 327, 6956, 42]),
    ("In 1969, the first", &[788, 216, 33, 41, 38, 41, 28, 260, 808]),
];

/// One token that the device would have written otherwise.
#[derive(Debug)]
struct Difference {
    /// Tokens before it, the prompt not counted.
    at: usize,
    /// How far the oracle puts the device's token behind its own.
    gap: f64,
    /// The largest error of any logit in the rows before this one.
    error_before: f64,
}

/// What a text's rows of logits say; `errors` are relative, by row.
#[derive(Debug, Default)]
struct Text {
    errors: Vec<f64>,
    largest: f64,
    differences: Vec<Difference>,
}

impl Text {
    fn add(&mut self, found: &[f32], exact: &[f32]) {
        let (chosen, token) = (best(found) as usize, best(exact) as usize);
        if chosen != token {
            let gap = f64::from(exact[token] - exact[chosen]);
            self.differences.push(Difference { at: self.errors.len(), gap, error_before: self.largest });
        }
        self.errors.push(relative_error(found, exact));
        let error = found.iter().zip(exact).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        self.largest = self.largest.max(error);
    }

    fn check(&self, prompt: &str) {
        let mut errors = self.errors.clone();
        errors.sort_by(f64::total_cmp);
        let (middle, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
        assert!(middle < MIDDLE && worst < WORST, "{prompt:?}: logits differ by {middle}, at worst {worst}");
        assert!(self.differences.iter().all(|d| d.gap < NEAR_TIE), "{prompt:?}: {:?}", self.differences);
        for difference in &self.differences {
            // Two logits, each wrong by no more than logits were before, change places over no more than this.
            let error = if difference.at == 0 { self.largest } else { difference.error_before };
            assert!(difference.gap <= 2.0 * error, "{prompt:?}: {difference:?} is no near tie");
        }
    }
}

/// The prompt in one step, then a token at a time; both are fed the oracle's tokens.
fn compare(model: &mut CudaModel, oracle: &mut dyn Backend, prompt: &[u32]) -> Text {
    let mut history = prompt.to_vec();
    let (mut exact, mut found, pages) = (Vec::new(), Vec::new(), [3, 1]);
    let (mut text, mut done) = (Text::default(), 0);
    for _ in 0..TOKENS {
        let rows =
            SequenceRows { tokens: &history[done..], start: done, pages: &pages, logits: LogitRows::Last };
        oracle.forward(&[rows], &mut exact).expect("a step");
        model.forward(&[rows], &mut found).expect("a step");
        done = history.len();
        text.add(&found, &exact);
        history.push(best(&exact));
    }
    text
}

#[test]
fn a_real_model_writes_what_the_oracle_writes_but_for_near_ties() {
    let Some(path) = std::env::var_os("SHOAL_TEST_MODEL") else {
        eprintln!("skipped: SHOAL_TEST_MODEL names no model file");
        return;
    };
    let checkpoint = Checkpoint::open(&path).expect("it opens");
    let Some(mut model) = device(&checkpoint) else { return };
    let mut oracle = oracle(&checkpoint);
    let texts = PROMPTS.map(|(prompt, tokens)| (prompt, compare(&mut model, oracle.as_mut(), tokens)));
    for (prompt, Text { errors, largest, differences }) in &texts {
        let worst = errors.iter().copied().fold(0.0, f64::max);
        println!(
            "{prompt:?}: logits within {worst:.2e}, none off by more than {largest:.3}; {differences:?}"
        );
    }
    for (prompt, text) in &texts {
        text.check(prompt);
    }
}
