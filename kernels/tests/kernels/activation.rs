use half::bf16;
use shoal_kernels::{Buffer, reference, silu_mul};

use crate::device::{Random, assert_close, bits, poisoned, queue, wide};

#[test]
fn silu_mul_is_its_formula() {
    let Some(queue) = queue() else { return };
    for (tokens, width) in [(1, 8), (3, 1536), (17, 2056), (256, 14336), (70001, 16)] {
        let input: Vec<bf16> = Random::new(width as u64).numbers(tokens * 2 * width, 8.0);
        let on_device = Buffer::from_host(&queue, &input).unwrap();
        let run = || {
            let mut out = poisoned::<bf16>(&queue, tokens * width);
            let mut target = out.rows_mut(tokens, width).unwrap();
            silu_mul(&queue, on_device.rows(tokens, 2 * width).unwrap(), &mut target).unwrap();
            out.read(&queue).unwrap()
        };
        let got = run();
        let want = reference::silu_mul(&wide(&input));
        assert_close(&format!("silu_mul {tokens}x{width}"), &got, &want, 1.0 / 250.0, 1e-6);
        assert_eq!(bits(&got), bits(&run()), "twice the same");
    }
}

#[test]
fn gates_far_from_zero_neither_overflow_nor_turn_to_nan() {
    let Some(queue) = queue() else { return };
    let gates = [-3e38_f32, -200.0, -100.0, 100.0, 200.0, 3e38, 0.0, -0.0];
    let input: Vec<bf16> = gates.iter().chain(&[1.0; 8]).map(|x| bf16::from_f32(*x)).collect();
    let on_device = Buffer::from_host(&queue, &input).unwrap();
    let mut out = poisoned::<bf16>(&queue, 8);
    silu_mul(&queue, on_device.rows(1, 16).unwrap(), &mut out.rows_mut(1, 8).unwrap()).unwrap();
    let want = reference::silu_mul(&wide(&input));
    assert_close("silu_mul extremes", &out.read(&queue).unwrap(), &want, 1.0 / 250.0, 1e-30);
}
