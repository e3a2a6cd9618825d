//! The device under test, random input, and how results are compared.

use std::sync::{Arc, OnceLock};

use half::{bf16, f16};
use shoal_kernels::{Buffer, Chain, Element, Gpu, Queue};

/// Bytes that outputs hold before a kernel runs: NaN in every floating-point type.
pub(crate) const POISON: u8 = 0xff;

pub(crate) fn queue() -> Option<Queue> {
    static GPU: OnceLock<Result<Arc<Gpu>, String>> = OnceLock::new();
    match GPU.get_or_init(|| Gpu::open(0).map_err(|error| error.to_string())) {
        Ok(gpu) => Some(Queue::new(gpu, Chain::Serial).expect("a stream")),
        Err(lack) if std::env::var_os("SHOAL_REQUIRE_GPU").is_some_and(|value| value == "1") => {
            panic!("{lack}")
        }
        Err(lack) => {
            eprintln!("skipped: {lack}");
            None
        }
    }
}

pub(crate) trait Number: Element + PartialEq + std::fmt::Debug {
    fn narrow(x: f32) -> Self;
    fn wide(self) -> f64;
}

impl Number for bf16 {
    fn narrow(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn wide(self) -> f64 {
        self.to_f64()
    }
}

impl Number for f16 {
    fn narrow(x: f32) -> Self {
        Self::from_f32(x)
    }
    fn wide(self) -> f64 {
        self.to_f64()
    }
}

impl Number for f32 {
    fn narrow(x: f32) -> Self {
        x
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

/// A repeatable stream of 64-bit numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Uniform in ±scale.
    pub(crate) fn numbers<T: Number>(&mut self, len: usize, scale: f32) -> Vec<T> {
        let unit = |bits: u64| ((bits >> 40) as f32 / (1 << 23) as f32) - 1.0;
        (0..len).map(|_| T::narrow(unit(self.next()) * scale)).collect()
    }
}

pub(crate) fn wide<T: Number>(data: &[T]) -> Vec<f64> {
    data.iter().map(|x| x.wide()).collect()
}

/// A buffer of `len` elements that all hold [`POISON`].
pub(crate) fn poisoned<T: Element>(queue: &Queue, len: usize) -> Buffer<T> {
    let mut buffer = Buffer::new(queue.gpu(), len).expect("memory");
    buffer.fill_bytes(queue, POISON).expect("a fill");
    buffer
}

/// Each element within `relative` of the reference plus `absolute`; prints the error over the whole.
pub(crate) fn assert_close<T: Number>(name: &str, got: &[T], want: &[f64], relative: f64, absolute: f64) {
    assert_eq!(got.len(), want.len(), "{name}: length");
    let (mut difference, mut size, mut largest) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (index, (got, want)) in got.iter().map(|x| x.wide()).zip(want.iter().copied()).enumerate() {
        let error = (got - want).abs();
        assert!(error <= relative * want.abs() + absolute, "{name}[{index}]: {got} instead of {want}");
        difference += error * error;
        size += want * want;
        largest = largest.max(error);
    }
    let norm = if size > 0.0 { (difference / size).sqrt() } else { difference.sqrt() };
    println!("error {{\"case\": {name:?}, \"norm\": {norm:.3e}, \"max\": {largest:.3e}}}");
}

/// Bits, so that equal NaNs are equal.
pub(crate) fn bits<T: Number>(data: &[T]) -> Vec<u64> {
    data.iter().map(|x| x.wide().to_bits()).collect()
}
