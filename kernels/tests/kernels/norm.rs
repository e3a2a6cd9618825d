use half::bf16;
use shoal_kernels::{Buffer, add_rmsnorm, reference, rmsnorm};

use crate::device::{Random, assert_close, bits, poisoned, queue, wide};

const SIZES: [(usize, usize); 6] = [(1, 8), (1, 4096), (13, 576), (257, 2048), (64, 14336), (4099, 1032)];

#[test]
fn rmsnorm_is_its_formula() {
    let Some(queue) = queue() else { return };
    for (tokens, hidden) in SIZES {
        let mut random = Random::new(hidden as u64);
        let (x, weight): (Vec<bf16>, Vec<bf16>) =
            (random.numbers(tokens * hidden, 3.0), random.numbers(hidden, 2.0));
        let on_device = Buffer::from_host(&queue, &x).unwrap();
        let weights = Buffer::from_host(&queue, &weight).unwrap();
        let run = || {
            let mut out = poisoned::<bf16>(&queue, tokens * hidden);
            let (input, weight) = (on_device.rows(tokens, hidden).unwrap(), weights.rows(1, hidden).unwrap());
            rmsnorm(&queue, input, weight, 1e-5, &mut out.rows_mut(tokens, hidden).unwrap()).unwrap();
            out.read(&queue).unwrap()
        };
        let got = run();
        let want = reference::rmsnorm(&wide(&x), &wide(&weight), 1e-5_f32.into());
        assert_close(&format!("rmsnorm {tokens}x{hidden}"), &got, &want, 1.0 / 250.0, 1e-6);
        assert_eq!(bits(&got), bits(&run()), "twice the same");
    }
}

#[test]
fn the_sum_is_stored_rounded_and_normed_as_stored_between_strided_rows() {
    let Some(queue) = queue() else { return };
    for (tokens, hidden) in SIZES {
        let mut random = Random::new(7 + hidden as u64);
        let stride = hidden + 16;
        let (x, weight): (Vec<bf16>, Vec<bf16>) =
            (random.numbers(tokens * stride, 3.0), random.numbers(hidden, 2.0));
        let before: Vec<bf16> = random.numbers(tokens * stride, 20.0);
        let on_device = Buffer::from_host(&queue, &x).unwrap();
        let weights = Buffer::from_host(&queue, &weight).unwrap();
        let mut residual = Buffer::from_host(&queue, &before).unwrap();
        let mut out = poisoned::<bf16>(&queue, tokens * hidden);
        add_rmsnorm(
            &queue,
            on_device.strided(0, tokens, hidden, stride).unwrap(),
            &mut residual.strided_mut(0, tokens, hidden, stride).unwrap(),
            weights.rows(1, hidden).unwrap(),
            1e-6,
            &mut out.rows_mut(tokens, hidden).unwrap(),
        )
        .unwrap();
        let sum: Vec<bf16> = (0..tokens * stride)
            .map(|i| {
                if i % stride < hidden {
                    bf16::from_f32(x[i].to_f32() + before[i].to_f32())
                } else {
                    before[i]
                }
            })
            .collect();
        assert_eq!(bits(&residual.read(&queue).unwrap()), bits(&sum));
        let rows: Vec<f64> = sum.chunks(stride).flat_map(|row| wide(&row[..hidden])).collect();
        let want = reference::rmsnorm(&rows, &wide(&weight), 1e-6_f32.into());
        let got = out.read(&queue).unwrap();
        assert_close(&format!("add_rmsnorm {tokens}x{hidden}"), &got, &want, 1.0 / 250.0, 1e-6);
    }
}
