use half::bf16;
use shoal_kernels::{Buffer, Chain, Queue, SkinnyOut, reference, skinny, skinny_fits};

use crate::device::{Random, assert_close, bits, poisoned, queue, wide};

const SHAPES: [[usize; 2]; 7] =
    [[32, 32], [96, 64], [288, 256], [1056, 608], [4096, 1024], [544, 4096], [8224, 96]];
const TOKENS: [usize; 11] = [1, 2, 7, 8, 9, 16, 17, 31, 64, 65, 128];

struct Case {
    tokens: usize,
    outputs: usize,
    inputs: usize,
    x: Buffer<bf16>,
    weight: Buffer<bf16>,
    old: Vec<bf16>,
    sums: Vec<f64>,
}

impl Case {
    fn new(queue: &Queue, tokens: usize, [outputs, inputs]: [usize; 2]) -> Self {
        let mut random = Random::new((tokens * outputs + inputs) as u64);
        let x: Vec<bf16> = random.numbers(tokens * inputs, 1.0);
        let weight: Vec<bf16> = random.numbers(outputs * inputs, 0.5);
        let sums = reference::product(&wide(&x), &wide(&weight), inputs);
        Self {
            tokens,
            outputs,
            inputs,
            x: Buffer::from_host(queue, &x).unwrap(),
            weight: Buffer::from_host(queue, &weight).unwrap(),
            old: random.numbers(tokens * outputs, 4.0),
            sums,
        }
    }

    fn absolute(&self) -> f64 {
        1e-4 * (self.inputs as f64).sqrt()
    }

    fn run(&self, queue: &Queue, out: SkinnyOut<'_, '_>) {
        let x = self.x.rows(self.tokens, self.inputs).unwrap();
        skinny(queue, x, self.weight.rows(self.outputs, self.inputs).unwrap(), out).unwrap();
    }

    fn stored(&self, queue: &Queue) -> Vec<bf16> {
        let mut out = poisoned::<bf16>(queue, self.tokens * self.outputs);
        self.run(queue, SkinnyOut::Store(&mut out.rows_mut(self.tokens, self.outputs).unwrap()));
        out.read(queue).unwrap()
    }
}

fn cases(queue: &Queue, check: impl Fn(&str, &Case)) {
    for tokens in TOKENS {
        for shape in SHAPES {
            let name = format!("skinny {tokens} x {} x {}", shape[0], shape[1]);
            check(&name, &Case::new(queue, tokens, shape));
        }
    }
}

#[test]
fn few_tokens_by_a_weight_are_their_sums() {
    let Some(queue) = queue() else { return };
    cases(&queue, |name, case| {
        let got = case.stored(&queue);
        assert_close(name, &got, &case.sums, 1.0 / 250.0, case.absolute());
        assert_eq!(bits(&got), bits(&case.stored(&queue)), "{name}: twice the same");
    });
}

#[test]
fn sums_are_added_to_what_is_there() {
    let Some(queue) = queue() else { return };
    cases(&queue, |name, case| {
        let mut out = Buffer::from_host(&queue, &case.old).unwrap();
        case.run(&queue, SkinnyOut::Add(&mut out.rows_mut(case.tokens, case.outputs).unwrap()));
        let want: Vec<f64> = case.sums.iter().zip(wide(&case.old)).map(|(sum, old)| sum + old).collect();
        assert_close(&format!("{name} add"), &out.read(&queue).unwrap(), &want, 1.0 / 250.0, case.absolute());
    });
}

#[test]
fn sums_in_f32_are_not_rounded() {
    let Some(queue) = queue() else { return };
    cases(&queue, |name, case| {
        let mut out = poisoned::<f32>(&queue, case.tokens * case.outputs);
        case.run(&queue, SkinnyOut::Wide(&mut out.rows_mut(case.tokens, case.outputs).unwrap()));
        let got = out.read(&queue).unwrap();
        assert_close(&format!("{name} wide"), &got, &case.sums, 1e-5, 1e-5 * (case.inputs as f64).sqrt());
    });
}

#[test]
fn gates_and_ups_of_one_product_are_joined() {
    let Some(queue) = queue() else { return };
    cases(&queue, |name, case| {
        let width = case.outputs / 2;
        let mut out = poisoned::<bf16>(&queue, case.tokens * width);
        case.run(&queue, SkinnyOut::Silu(&mut out.rows_mut(case.tokens, width).unwrap()));
        let want = reference::silu_mul(&case.sums);
        let absolute = case.absolute() * 40.0;
        assert_close(&format!("{name} silu"), &out.read(&queue).unwrap(), &want, 1.0 / 250.0, absolute);
    });
}

/// Products that each read what the one before wrote, with their weights asked for early.
#[test]
fn early_weights_do_not_overtake_the_chain() {
    let Some(queue) = queue() else { return };
    for tokens in [1, 12, 24, 64, 100] {
        let run = |queue: &Queue| {
            let mut random = Random::new(3);
            let mut x = Buffer::from_host(queue, &random.numbers::<bf16>(tokens * 1024, 1.0)).unwrap();
            let mut y = poisoned::<bf16>(queue, tokens * 1024);
            let weight = Buffer::from_host(queue, &random.numbers::<bf16>(1024 * 1024, 0.054)).unwrap();
            for _ in 0..40 {
                let weight = weight.rows(1024, 1024).unwrap();
                let mut out = y.rows_mut(tokens, 1024).unwrap();
                skinny(queue, x.rows(tokens, 1024).unwrap(), weight, SkinnyOut::Store(&mut out)).unwrap();
                let mut out = x.rows_mut(tokens, 1024).unwrap();
                skinny(queue, y.rows(tokens, 1024).unwrap(), weight, SkinnyOut::Store(&mut out)).unwrap();
            }
            x.read(queue).unwrap()
        };
        let serial = run(&queue);
        assert!(serial.iter().all(|x| x.is_finite()), "the chain stays finite");
        for _ in 0..5 {
            assert_eq!(bits(&serial), bits(&run(&queue.chained(Chain::Programmatic))), "{tokens} tokens");
        }
    }
}

#[test]
fn shapes_without_a_kernel_are_refused() {
    let Some(queue) = queue() else { return };
    assert!(!skinny_fits(129, 32, 32) && !skinny_fits(1, 40, 32) && !skinny_fits(1, 32, 40));
    let a = Buffer::<bf16>::new(queue.gpu(), 8192).unwrap();
    let mut out = Buffer::<bf16>::new(queue.gpu(), 8192).unwrap();
    let mut target = out.rows_mut(129, 32).unwrap();
    let refused =
        skinny(&queue, a.rows(129, 32).unwrap(), a.rows(32, 32).unwrap(), SkinnyOut::Store(&mut target));
    assert!(refused.expect_err("129 tokens").to_string().contains("129 tokens"));
}
