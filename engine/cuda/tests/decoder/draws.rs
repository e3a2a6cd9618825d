//! Tokens that the device draws itself.

use shoal_cuda::CudaModel;
use shoal_kernels::reference::{argmax, gumbel};
use shoal_model::{Draw, LogitRows, SequenceRows};

use crate::drive::{device, model, safetensors, tokens};

const PROMPTS: [usize; 4] = [70, 1, 33, 5];
const STEPS: usize = 12;

fn pages(sequence: usize) -> Vec<u32> {
    (0..2).map(|page| (2 * sequence + page) as u32).collect()
}

fn draw(sequence: usize, step: usize) -> Draw {
    let temperature = [0.0, 0.8, 1.5, 0.3][sequence];
    Draw { temperature, seed: (sequence as u64) << 40 | 9, index: step as u32 }
}

/// What the formula draws from a row of logits.
fn expected(logits: &[f32], draw: Draw) -> u32 {
    let Draw { temperature, seed, index } = draw;
    let value = |(token, logit): (usize, &f32)| match temperature {
        0.0 => f64::from(*logit),
        _ => f64::from(*logit) / f64::from(temperature) + gumbel(seed, index, token as u32),
    };
    argmax(&logits.iter().enumerate().map(value).collect::<Vec<_>>())
}

/// One step of every sequence, `done` tokens of each computed before; logits or draws.
fn step(
    model: &mut CudaModel,
    texts: &[Vec<u32>],
    done: &[usize],
    wants: impl Fn(usize) -> LogitRows,
) -> Vec<f32> {
    let pages: Vec<_> = (0..texts.len()).map(pages).collect();
    let batch: Vec<_> = (0..texts.len())
        .map(|s| SequenceRows {
            tokens: &texts[s][done[s]..],
            start: done[s],
            pages: &pages[s],
            logits: wants(s),
        })
        .collect();
    let mut logits = Vec::new();
    model.forward(&batch, &mut logits).expect("a step");
    logits
}

/// Prompts in a mixed step, then tokens by graph: each step is computed once for its logits and once to draw.
#[test]
fn draws_are_those_of_the_logits_that_the_host_would_see() {
    let Some(mut model) = device(&safetensors(&model("llama3"))) else { return };
    let mut texts: Vec<Vec<u32>> = PROMPTS.iter().enumerate().map(|(s, len)| tokens(s, *len)).collect();
    let mut done = vec![0; texts.len()];
    for index in 0..STEPS {
        let logits = step(&mut model, &texts, &done, |_| LogitRows::Last);
        assert!(model.drawn().is_empty(), "nobody draws");
        let want: Vec<u32> =
            logits.chunks_exact(288).enumerate().map(|(s, row)| expected(row, draw(s, index))).collect();
        let none = step(&mut model, &texts, &done, |s| LogitRows::Drawn(draw(s, index)));
        assert!(none.is_empty(), "nobody asks for logits");
        assert_eq!(model.drawn(), want, "step {index}");
        // Both beside each other: the second and the last draw.
        let some = step(&mut model, &texts, &done, |s| match s % 2 {
            0 => LogitRows::Last,
            _ => LogitRows::Drawn(draw(s, index)),
        });
        assert_eq!(model.drawn(), [want[1], want[3]], "step {index}");
        assert_eq!(some, [&logits[..288], &logits[2 * 288..3 * 288]].concat(), "step {index}");
        for (s, token) in want.into_iter().enumerate() {
            done[s] = texts[s].len();
            texts[s].push(token);
        }
    }
}
