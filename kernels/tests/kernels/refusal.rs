use half::bf16;
use shoal_kernels::{BUILD, Buffer, ErrorClass, Gpu, OpenError, gather, rmsnorm, silu_mul, units};

use crate::device::queue;

#[test]
fn a_missing_device_is_named() {
    let error = Gpu::open(4096).expect_err("no machine has that many");
    assert!(
        matches!(error, OpenError::NoDriver | OpenError::NoDevice { .. } | OpenError::Driver { .. }),
        "{error}"
    );
    assert_eq!(error.class(), ErrorClass::Fatal);
}

#[test]
fn the_build_says_what_it_found() {
    assert!(!BUILD.is_empty());
    assert_eq!(BUILD.contains("no nvcc"), units(90).count() == 0, "{BUILD}");
    assert!(units(90).all(|unit| unit.image.starts_with(b"\x7fELF")));
}

#[test]
fn shapes_that_do_not_fit_are_refused_with_their_numbers() {
    let Some(queue) = queue() else { return };
    let mut buffer = Buffer::<bf16>::new(queue.gpu(), 1024).unwrap();
    let other = Buffer::<bf16>::new(queue.gpu(), 1024).unwrap();
    let ids = Buffer::<u32>::new(queue.gpu(), 4).unwrap();

    let error = other.rows(3, 512).expect_err("past the end");
    assert!(error.to_string().contains("1024"), "{error}");
    assert!(other.strided(1000, 2, 16, 32).is_err());
    assert!(other.strided(0, 2, 64, 32).is_err(), "rows that overlap");
    assert!(other.strided(usize::MAX, 2, 8, 8).is_err());

    let mut out = buffer.rows_mut(4, 64).unwrap();
    let error = gather(&queue, other.rows(8, 72).unwrap(), ids.rows(1, 4).unwrap(), &mut out)
        .expect_err("72 into 64");
    assert_eq!(error.class(), ErrorClass::Invalid);
    assert!(error.to_string().contains("72"), "{error}");
    assert!(silu_mul(&queue, other.rows(4, 100).unwrap(), &mut out).is_err());

    let mut odd = buffer.strided_mut(1, 4, 64, 64).unwrap();
    let weight = other.rows(1, 64).unwrap();
    let error = rmsnorm(&queue, other.rows(4, 64).unwrap(), weight, 1e-5, &mut odd).expect_err("odd address");
    assert!(error.to_string().contains("16-byte"), "{error}");
}
