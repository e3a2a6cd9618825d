use half::bf16;
use shoal_kernels::{Buffer, Gemm, Product, ProductElement, Queue, reference};

use crate::device::{Number, Random, assert_close, bits, poisoned, queue, wide};

/// The library, or `None` with the reason where it is not installed.
fn library(queue: &Queue) -> Option<Gemm> {
    let found = Gemm::new(queue.gpu());
    if std::env::var_os("SHOAL_REQUIRE_GPU").is_some_and(|value| value == "1") {
        return Some(found.unwrap());
    }
    found.map_err(|lack| eprintln!("skipped: {lack}")).ok()
}

/// A product through the library, after tuning, and by its formula.
fn check<T: ProductElement + Number>(
    queue: &Queue,
    gemm: &mut Gemm,
    shape: [usize; 3],
    bias: bool,
    add: bool,
) {
    let [tokens, outputs, inputs] = shape;
    let mut random = Random::new((tokens * outputs + inputs) as u64);
    let x: Vec<bf16> = random.numbers(tokens * inputs, 1.0);
    let weight: Vec<bf16> = random.numbers(outputs * inputs, 0.5);
    let offsets: Vec<bf16> = random.numbers(outputs, 4.0);
    let old: Vec<T> = random.numbers(tokens * outputs, 4.0);
    let mut want = reference::product(&wide(&x), &wide(&weight), inputs);
    for (i, want) in want.iter_mut().enumerate() {
        *want += if add { old[i].wide() } else { 0.0 };
        *want += if bias { offsets[i % outputs].wide() } else { 0.0 };
    }
    let (x, weight) = (Buffer::from_host(queue, &x).unwrap(), Buffer::from_host(queue, &weight).unwrap());
    let offsets = Buffer::from_host(queue, &offsets).unwrap();
    let product = Product {
        x: x.rows(tokens, inputs).unwrap(),
        weight: weight.rows(outputs, inputs).unwrap(),
        bias: bias.then(|| offsets.rows(1, outputs).unwrap()),
        add,
    };
    let run = |gemm: &mut Gemm| {
        let mut out =
            if add { Buffer::from_host(queue, &old).unwrap() } else { poisoned(queue, tokens * outputs) };
        gemm.product(queue, product, &mut out.rows_mut(tokens, outputs).unwrap()).unwrap();
        out.read(queue).unwrap()
    };
    let first = run(gemm);
    let name = format!("product {tokens}x{outputs}x{inputs} bias {bias} add {add}");
    let absolute = 1e-4 * (inputs as f64).sqrt();
    let relative = 1.0 / 250.0;
    // Some of the library's algorithms round the sum before they add it to what is there.
    let rounded = want.iter().fold(0.0_f64, |most, x| most.max(x.abs())) / 250.0;
    let absolute = if add { absolute + rounded } else { absolute };
    assert_close(&name, &first, &want, relative, absolute);
    let mut scratch = poisoned::<T>(queue, tokens * outputs);
    let weights = [product.weight];
    gemm.tune(queue, product, &weights, &mut scratch.rows_mut(tokens, outputs).unwrap()).unwrap();
    let tuned = run(gemm);
    assert_close(&name, &tuned, &want, relative, absolute);
    assert_eq!(bits(&tuned), bits(&run(gemm)), "twice the same");
}

#[test]
fn products_of_the_library_are_their_formula() {
    let Some(queue) = queue() else { return };
    let Some(mut gemm) = library(&queue) else { return };
    for shape in [[1, 96, 64], [8, 288, 96], [64, 1536, 576], [136, 512, 256], [1, 4096, 1024]] {
        check::<bf16>(&queue, &mut gemm, shape, false, false);
        check::<bf16>(&queue, &mut gemm, shape, true, false);
        check::<bf16>(&queue, &mut gemm, shape, false, true);
        check::<f32>(&queue, &mut gemm, shape, false, false);
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let Some(queue) = queue() else { return };
    let Some(mut gemm) = library(&queue) else { return };
    let a = Buffer::<bf16>::new(queue.gpu(), 4096).unwrap();
    let mut out = Buffer::<bf16>::new(queue.gpu(), 4096).unwrap();
    let product = |x, weight| Product { x, weight, bias: None, add: false };
    let mut target = out.rows_mut(8, 64).unwrap();
    let odd = product(a.rows(8, 32).unwrap(), a.rows(64, 64).unwrap());
    assert!(gemm.product(&queue, odd, &mut target).is_err(), "32 inputs against 64");
    let strided = product(a.strided(0, 8, 32, 64).unwrap(), a.rows(64, 32).unwrap());
    assert!(gemm.product(&queue, strided, &mut target).is_err(), "rows with gaps");
    let shifted = product(a.strided(8, 8, 32, 32).unwrap(), a.rows(64, 32).unwrap());
    assert!(gemm.product(&queue, shifted, &mut target).is_err(), "an address between");
}
